//! The page of an approval.

use std::fmt::{self, Display};

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use tidegate_http::{Escaped, Problem, Time, html_page};

use crate::approvals::{ApprovalStatus, ApprovalView};

/// The page of an approval that the link is good for.
pub(crate) fn of_approval(view: &ApprovalView) -> Response {
    let (heading, form) = match view.status {
        ApprovalStatus::Open => ("A run asks for your approval", FORM.to_owned()),
        ApprovalStatus::Approved => ("Approved", outcome("This was approved", view.decided_at)),
        ApprovalStatus::Rejected => ("Rejected", outcome("This was rejected", view.decided_at)),
        ApprovalStatus::Expired => ("Too late", outcome("The time for this decision was over", view.until)),
        ApprovalStatus::Closed => ("The run is over", outcome("Nothing waits for this decision any more", None)),
    };
    let message = view.message.as_ref();
    let message = message.map(|text| format!("<p class=\"message\">{}</p>", Escaped(text))).unwrap_or_default();
    let workflow = view.workflow.as_deref().unwrap_or("deleted");
    let until = view.until.filter(|_| view.status == ApprovalStatus::Open);
    let until = until.map(|until| format!("<dt>Until</dt><dd>{}</dd>", At(until.0))).unwrap_or_default();
    let body = format!(
        "{message}<dl><dt>Workflow</dt><dd>{}</dd><dt>Step</dt><dd>{}</dd><dt>Run</dt><dd>{}</dd>{until}</dl>{form}",
        Escaped(workflow),
        Escaped(&view.step),
        view.run_id,
    );
    html_page(StatusCode::OK, heading, &body)
}

/// The page of a refusal.
pub(crate) fn of_problem(problem: &Problem) -> Response {
    let code = problem.code();
    let body = format!("<p class=\"message\">{}</p>", Escaped(&problem.to_string()));
    html_page(code.status(), code.title(), &body)
}

const FORM: &str = "\
<form method=\"post\">\
<label for=\"comment\">Comment (optional)</label>\
<textarea id=\"comment\" name=\"comment\" rows=\"3\" maxlength=\"2000\"></textarea>\
<button class=\"first\" name=\"decision\" value=\"approve\">Approve</button>\
<button name=\"decision\" value=\"reject\">Reject</button>\
</form>";

fn outcome(what: &str, at: Option<Time>) -> String {
    match at {
        Some(Time(at)) => format!("<p>{what} on {}.</p>", At(at)),
        None => format!("<p>{what}.</p>"),
    }
}

/// A time for people.
struct At(Timestamp);

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}
