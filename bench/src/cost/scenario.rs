//! The kinds of runs that are counted.

/// A kind of run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Messages that the mapping hands over together, where there are so many.
    pub(crate) batch: u32,
    /// Whether caches are filled before; otherwise each batch finds a process that has just started.
    pub(crate) warm: bool,
    pub(crate) trigger: Trigger,
    /// The steps, each a call.
    pub(crate) steps: u32,
    /// Whether they use a connection.
    pub(crate) connection: bool,
    /// What the first call of each run is answered.
    pub(crate) first_answer: FirstAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A webhook's body of about so many bytes.
    Webhook { body_bytes: usize },
    /// A schedule's firing.
    Schedule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstAnswer {
    Good,
    /// 503: tried again in place.
    Unavailable,
    /// 503 and `Retry-After` an hour: the run is parked until then.
    UnavailableForAnHour,
}

const ONE_STEP: Scenario = Scenario {
    name: "one step, warm",
    batch: 10,
    warm: true,
    trigger: Trigger::Webhook { body_bytes: 150 },
    steps: 1,
    connection: false,
    first_answer: FirstAnswer::Good,
};

pub(crate) const SCENARIOS: [Scenario; 10] = [
    ONE_STEP,
    Scenario { name: "one step, alone in its batch", batch: 1, ..ONE_STEP },
    Scenario { name: "one step, cold, alone", batch: 1, warm: false, ..ONE_STEP },
    Scenario { name: "five steps, warm", steps: 5, ..ONE_STEP },
    Scenario { name: "with a connection, warm", connection: true, ..ONE_STEP },
    Scenario { name: "with a connection, cold, alone", batch: 1, warm: false, connection: true, ..ONE_STEP },
    Scenario { name: "one retry in place, warm", first_answer: FirstAnswer::Unavailable, ..ONE_STEP },
    Scenario { name: "parked for an hour, woken alone", first_answer: FirstAnswer::UnavailableForAnHour, ..ONE_STEP },
    Scenario { name: "a body of 20 KB, warm", trigger: Trigger::Webhook { body_bytes: 20_000 }, ..ONE_STEP },
    Scenario {
        name: "a schedule's firing, cold, alone",
        batch: 1,
        warm: false,
        trigger: Trigger::Schedule,
        ..ONE_STEP
    },
];
