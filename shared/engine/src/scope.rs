//! The names that a run's expressions see: the body's fields, and the reserved names, which win. A step sees those steps
//! only that are settled before it whatever happens, so that what it sees never depends on who was faster.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value, json};
use tidegate_model::{StepError, TriggerKind, WebhookRequest};

use crate::{Data, Facts, Names, Plan, Scope};

/// The names of a run that is made up, to try expressions in: a body's fields, and values of reserved names, which win
/// as they do in a run.
pub fn preview(body: Data, reserved: impl IntoIterator<Item = (&'static str, Data)>) -> Scope {
    Scope::lazy(Arc::new(PreviewNames { body, reserved: reserved.into_iter().collect() }))
}

/// `trigger`: what started a run.
pub fn trigger_names(
    kind: TriggerKind,
    content_type: Option<&str>,
    request: Option<&WebhookRequest>,
    body: Data,
) -> Data {
    let mut members =
        vec![("type", Data::from(&json!(kind))), ("content_type", Data::from(&json!(content_type))), ("body", body)];
    if let Some(WebhookRequest { method, query, headers, files }) = request {
        members.push(("method", Data::from(&json!(method))));
        members.push(("query", Data::from(&json!(query))));
        members.push(("headers", Data::from(&json!(headers))));
        members.push(("files", Data::from(&json!(files))));
    }
    Data::object(members.into_iter().map(|(name, data)| (name.to_owned(), data)))
}

/// A name at the top of a scope that isn't made as the run goes.
fn look_up(reserved: &[(&'static str, Data)], body: &Data, name: &str) -> Option<Data> {
    let reserved = reserved.iter().find(|(reserved, _)| *reserved == name);
    reserved.map(|(_, data)| data.clone()).or_else(|| body.member(name))
}

struct PreviewNames {
    body: Data,
    reserved: Vec<(&'static str, Data)>,
}

impl Names for PreviewNames {
    fn get(&self, name: &str) -> Option<Data> {
        look_up(&self.reserved, &self.body, name)
    }

    fn names(&self) -> Vec<String> {
        self.reserved.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// What is known of a run, shared by all scopes of it.
pub(crate) struct Known {
    plan: Arc<Plan>,
    body: Data,
    reserved: Vec<(&'static str, Data)>,
    steps: RwLock<Vec<StepNames>>,
}

/// What is known of a step.
#[derive(Default)]
struct StepNames {
    members: Vec<(&'static str, Data)>,
    output: Option<Data>,
}

impl Known {
    pub(crate) fn new(plan: Arc<Plan>, facts: &Facts, body: Data, parameters: &Map<String, Value>) -> Self {
        let trigger =
            trigger_names(facts.trigger, facts.content_type.as_deref(), facts.request.as_deref(), body.clone());
        let workflow = json!({"id": facts.workflow_id, "name": plan.definition().name, "version": facts.version});
        let approvals: Map<_, _> =
            facts.approvals.iter().map(|(step, url)| (step.clone(), json!({"url": url}))).collect();
        let run = json!({"id": facts.run_id, "started_at": facts.started_at, "approvals": approvals});
        let reserved = vec![
            ("trigger", trigger),
            ("params", Data::from(&Value::Object(parameters.clone()))),
            ("run", Data::from(&run)),
            ("workflow", Data::from(&workflow)),
            ("tenant", Data::from(&json!({"id": facts.tenant_id}))),
            ("now", Data::from(&json!(facts.started_at))),
        ];
        let count = plan.definition().steps.len();
        let steps = RwLock::new(std::iter::repeat_with(StepNames::default).take(count).collect());
        Self { plan, body, reserved, steps }
    }

    pub(crate) fn set_output(&self, step: usize, output: Data) {
        self.change(step, |names| names.output = Some(output));
    }

    pub(crate) fn set_errors(&self, step: usize, errors: Value) {
        self.change(step, |names| names.members.push(("errors", Data::from(&errors))));
    }

    pub(crate) fn succeeded(&self, step: usize, outlet: Option<&str>) {
        self.change(step, |names| {
            names.members.push(("status", Data::from(&json!("succeeded"))));
            if let Some(outlet) = outlet {
                names.members.push(("outlet", Data::from(&json!(outlet))));
            }
        });
    }

    pub(crate) fn failed(&self, step: usize, error: &StepError) {
        self.change(step, |names| {
            names.members.push(("status", Data::from(&json!("failed"))));
            names.members.push(("error", Data::from(&json!(error))));
        });
    }

    fn change(&self, step: usize, change: impl FnOnce(&mut StepNames)) {
        let mut steps = self.steps.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = steps.get_mut(step) {
            change(names);
        }
    }

    /// What a step's expressions see.
    pub(crate) fn before(self: &Arc<Self>, step: usize) -> RootNames {
        RootNames { known: Arc::clone(self), step: Some(step) }
    }

    /// What the expressions of the run's output see.
    pub(crate) fn at_the_end(self: &Arc<Self>) -> RootNames {
        RootNames { known: Arc::clone(self), step: None }
    }

    fn step(&self, step: usize) -> Data {
        let steps = self.steps.read().unwrap_or_else(PoisonError::into_inner);
        let Some(names) = steps.get(step) else { return Data::object([]) };
        let output = names.output.iter().map(|output| ("output", output));
        let members = names.members.iter().map(|(name, data)| (*name, data)).chain(output);
        let members: Vec<_> = members.map(|(name, data)| (name.to_owned(), data.clone())).collect();
        if members.is_empty() {
            return Data::object([("status".to_owned(), Data::from(&json!("skipped")))]);
        }
        Data::object(members)
    }
}

/// The names at the top of a scope.
pub(crate) struct RootNames {
    known: Arc<Known>,
    /// The step whose scope it is; none for the run's end.
    step: Option<usize>,
}

impl Names for RootNames {
    fn get(&self, name: &str) -> Option<Data> {
        if name == "steps" {
            return Some(Data::lazy(Arc::new(StepsNames { known: Arc::clone(&self.known), step: self.step })));
        }
        look_up(&self.known.reserved, &self.known.body, name)
    }

    fn names(&self) -> Vec<String> {
        let reserved = self.known.reserved.iter().map(|(name, _)| (*name).to_owned());
        reserved.chain(["steps".to_owned()]).collect()
    }
}

/// `steps`: those that are settled before one of them.
struct StepsNames {
    known: Arc<Known>,
    step: Option<usize>,
}

impl StepsNames {
    fn sees(&self, step: usize) -> bool {
        self.step.is_none_or(|of| self.known.plan.graph().is_before(step, of))
    }
}

impl Names for StepsNames {
    fn get(&self, name: &str) -> Option<Data> {
        let step = self.known.plan.position(name)?;
        self.sees(step).then(|| self.known.step(step))
    }

    fn names(&self) -> Vec<String> {
        let steps = self.known.plan.definition().steps.iter().enumerate();
        steps.filter(|(index, _)| self.sees(*index)).map(|(_, step)| step.id.clone()).collect()
    }
}
