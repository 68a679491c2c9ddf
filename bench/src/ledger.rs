//! Which runs were posted, accepted and received, and when.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::latencies::Latencies;

/// The runs of the phase that is on. Ids count up over all phases, so a late arrival from an earlier one is seen.
#[derive(Default)]
pub(crate) struct Ledger {
    runs: RefCell<Vec<Run>>,
    first: Cell<usize>,
    unsettled: Cell<usize>,
    settled: Notify,
}

#[derive(Default)]
struct Run {
    posted: Option<Instant>,
    accepted: Option<(Instant, Box<str>)>,
    refused: bool,
    arrived: Option<Instant>,
    arrivals: u32,
}

/// What a phase came to.
pub(crate) struct Report {
    accepted: usize,
    executed: usize,
    /// Accepted, never received.
    pub(crate) lost: usize,
    /// Received more than once, in this phase or an earlier one.
    pub(crate) doubled: usize,
    /// Posted, not accepted.
    pub(crate) refused: usize,
    runs_per_second: f64,
    accepts_per_second: f64,
    accept: Latencies,
    end_to_end: Latencies,
    server_cpu: Duration,
    own_cpu: Duration,
}

impl Ledger {
    /// Opens a phase of so many runs.
    pub(crate) fn begin(&self, runs: u32) {
        let mut all = self.runs.borrow_mut();
        self.first.set(all.len());
        let end = all.len() + runs as usize;
        all.resize_with(end, Run::default);
        // Each is settled in two halves: answered and arrived.
        self.unsettled.set(2 * runs as usize);
    }

    /// The ids of the phase.
    pub(crate) fn ids(&self) -> std::ops::Range<usize> {
        self.first.get()..self.runs.borrow().len()
    }

    /// A run is about to be posted.
    pub(crate) fn posted(&self, id: usize, at: Instant) {
        self.runs.borrow_mut()[id].posted = Some(at);
    }

    /// Its post was answered: with the run's id where it was accepted.
    pub(crate) fn answered(&self, id: usize, run: Option<Box<str>>) {
        let mut all = self.runs.borrow_mut();
        match run {
            Some(run) => all[id].accepted = Some((Instant::now(), run)),
            None => {
                all[id].refused = true;
                // It needn't arrive.
                if all[id].arrivals == 0 {
                    self.settle(1);
                }
            }
        }
        self.settle(1);
    }

    /// A call with this id came in.
    pub(crate) fn arrived(&self, id: usize) {
        let mut all = self.runs.borrow_mut();
        let Some(run) = all.get_mut(id) else { return };
        run.arrivals += 1;
        if run.arrivals == 1 {
            run.arrived = Some(Instant::now());
            if id >= self.first.get() && !run.refused {
                self.settle(1);
            }
        }
    }

    /// Waits until every run of the phase was answered and, where accepted, has arrived.
    pub(crate) async fn all_arrived(&self) {
        while self.unsettled.get() > 0 {
            self.settled.notified().await;
        }
    }

    /// Ids of accepted runs, evenly spread.
    pub(crate) fn sample(&self, count: usize) -> Vec<String> {
        let all = self.runs.borrow();
        let step = (all.len() / count).max(1);
        all.iter().step_by(step).filter_map(|run| Some(run.accepted.as_ref()?.1.to_string())).take(count).collect()
    }

    /// The phase's result, given the CPU time that the server and this program used in it.
    pub(crate) fn report(&self, server_cpu: Duration, own_cpu: Duration) -> Report {
        let all = self.runs.borrow();
        let phase = &all[self.first.get()..];
        let accepted = || phase.iter().filter(|run| run.accepted.is_some());
        let executed = accepted().filter(|run| run.arrivals > 0).count();
        let start = phase.iter().filter_map(|run| run.posted).min();
        let rate = |count: usize, end: Option<Instant>| match (start, end) {
            (Some(start), Some(end)) => count as f64 / end.duration_since(start).as_secs_f64(),
            _ => 0.0,
        };
        let last_accept = phase.iter().filter_map(|run| run.accepted.as_ref().map(|(at, _)| *at)).max();
        let last_arrival = phase.iter().filter_map(|run| run.arrived).max();
        let since_post = |end: fn(&Run) -> Option<Instant>| {
            Latencies::new(phase.iter().filter_map(|run| Some(end(run)?.duration_since(run.posted?))).collect())
        };
        Report {
            accepted: accepted().count(),
            executed,
            lost: accepted().count() - executed,
            doubled: all.iter().filter(|run| run.arrivals > 1).count(),
            refused: phase.iter().filter(|run| run.refused).count(),
            runs_per_second: rate(executed, last_arrival),
            accepts_per_second: rate(accepted().count(), last_accept),
            accept: since_post(|run| run.accepted.as_ref().map(|(at, _)| *at)),
            end_to_end: since_post(|run| run.arrived),
            server_cpu,
            own_cpu,
        }
    }

    fn settle(&self, count: usize) {
        self.unsettled.set(self.unsettled.get().saturating_sub(count));
        if self.unsettled.get() == 0 {
            self.settled.notify_one();
        }
    }
}

impl Report {
    /// The result as text for people.
    pub(crate) fn table(&self, name: &str) -> String {
        let per_run = |cpu: Duration| cpu.as_secs_f64() * 1e3 / self.executed.max(1) as f64;
        let mut table = format!("{name}\n");
        let mut row = |label: &str, value: String| {
            // Writing to a string can't fail.
            writeln!(table, "  {label:<34}{value}").ok();
        };
        row("accepted", self.accepted.to_string());
        row("executed", self.executed.to_string());
        row("lost", self.lost.to_string());
        row("doubled", self.doubled.to_string());
        row("not accepted", self.refused.to_string());
        row("runs/s", format!("{:.0}", self.runs_per_second));
        row("accepts/s", format!("{:.0}", self.accepts_per_second));
        row("accept p50 / p99 (ms)", self.accept.to_string());
        row("end to end p50 / p99 (ms)", self.end_to_end.to_string());
        row("server CPU per run (ms)", format!("{:.3}", per_run(self.server_cpu)));
        row("load and sink CPU per run (ms)", format!("{:.3}", per_run(self.own_cpu)));
        table.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(ledger: &Ledger, id: usize, run: Option<&str>) {
        ledger.posted(id, Instant::now());
        ledger.answered(id, run.map(Into::into));
    }

    #[test]
    fn lost_doubled_and_refused_runs_are_told_apart() {
        let ledger = Ledger::default();
        ledger.begin(1);
        post(&ledger, 0, Some("run_0"));
        ledger.arrived(0);
        ledger.begin(4);
        for id in 1..4 {
            post(&ledger, id, Some("run"));
        }
        post(&ledger, 4, None);
        ledger.arrived(0); // again, from the phase before
        ledger.arrived(1);
        ledger.arrived(2);
        ledger.arrived(2);
        ledger.arrived(99); // never posted
        let report = ledger.report(Duration::ZERO, Duration::ZERO);
        assert_eq!((report.accepted, report.executed, report.lost), (3, 2, 1));
        assert_eq!((report.doubled, report.refused), (2, 1));
        assert_eq!(ledger.unsettled.get(), 1);
    }

    #[tokio::test]
    async fn a_phase_is_over_when_all_accepted_runs_arrived() {
        let ledger = Ledger::default();
        ledger.begin(2);
        ledger.arrived(0); // the call may come in before the answer does
        post(&ledger, 0, Some("run_0"));
        post(&ledger, 1, None);
        ledger.all_arrived().await;
    }
}
