//! Lists of runs.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_model::{RunId, RunRow, RunStatus, TenantId, WorkflowId};
use tidegate_store::{Error, RunFilter, Runs};

use crate::setup::{Setup, ended, everywhere, start, walk};

const STATUSES: [RunStatus; 6] = [
    RunStatus::Running,
    RunStatus::Succeeded,
    RunStatus::Waiting,
    RunStatus::Failed,
    RunStatus::Cancelled,
    RunStatus::TimedOut,
];

/// Runs of two workflows in every status; newest first, as they are stored in the end.
async fn history(setup: &Setup, tenant: TenantId, workflows: [WorkflowId; 2], count: usize) -> Vec<RunRow> {
    let runs = setup.store().runs();
    let mut rows = Vec::new();
    for i in 0..count {
        let claimed = setup.run(tenant, workflows[i % 2]);
        runs.create(&claimed, None).await.unwrap();
        let row = ended(&claimed, STATUSES[i % STATUSES.len()], setup.clock.now());
        if row != claimed {
            runs.replace(&claimed, &row, None).await.unwrap();
        }
        rows.push(row);
    }
    rows.reverse();
    rows
}

async fn all(runs: Runs<'_>, tenant: TenantId, filter: &RunFilter, limit: usize) -> Vec<RunRow> {
    let pages = walk(async |cursor| runs.list(tenant, filter, cursor, limit).await.unwrap()).await;
    assert!(pages.iter().all(|page| page.len() <= limit));
    pages.concat()
}

#[tokio::test]
async fn every_filter_shows_exactly_its_runs_newest_first() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let (tenant, other) = (setup.ids.tenant(), setup.ids.tenant());
        let workflows = [setup.ids.workflow(), setup.ids.workflow()];
        let rows = history(&setup, tenant, workflows, 24).await;
        let theirs = history(&setup, other, [setup.ids.workflow(); 2], 5).await;
        setup.settle();

        let (early, late) = (rows[17].accepted_at, rows[6].accepted_at + Duration::from_nanos(1));
        let ranges = [(None, None), (Some(early), None), (Some(early), Some(late)), (Some(late), Some(early))];
        let statuses = STATUSES.into_iter().map(Some).chain([None, Some(RunStatus::Queued), Some(RunStatus::Skipped)]);
        let mut filters = Vec::new();
        for status in statuses {
            let any = RunFilter { status, ..RunFilter::default() };
            filters.extend(workflows.map(|workflow| RunFilter { workflow: Some(workflow), ..any.clone() }));
            filters.extend(ranges.map(|(from, to)| RunFilter { from, to, ..any.clone() }));
        }
        for filter in filters {
            let RunFilter { workflow, status, from, to } = filter;
            let shown = |row: &&RunRow| {
                status.is_none_or(|status| row.status == status)
                    && workflow.is_none_or(|workflow| row.workflow == workflow)
                    && from.is_none_or(|from| row.accepted_at >= from)
                    && to.is_none_or(|to| row.accepted_at < to)
            };
            let expected: Vec<_> = rows.iter().filter(shown).cloned().collect();
            assert_eq!(all(runs, tenant, &filter, 7).await, expected, "{filter:?}");
        }
        for limit in [5, 23, 24, 100] {
            assert_eq!(all(runs, tenant, &RunFilter::default(), limit).await, rows, "limit {limit}");
        }
        for status in [None, Some(RunStatus::Failed), Some(RunStatus::Running)] {
            let filter = RunFilter { workflow: Some(theirs[0].workflow), status, ..RunFilter::default() };
            assert_eq!(all(runs, tenant, &filter, 10).await, [], "another tenant's workflow");
        }
        assert_eq!(all(runs, setup.ids.tenant(), &RunFilter::default(), 10).await, []);
    })
    .await;
}

#[tokio::test]
async fn stale_indexes_never_show_what_is_not_so() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let tenant = setup.ids.tenant();
        let workflows = [setup.ids.workflow(), setup.ids.workflow()];
        let rows = history(&setup, tenant, workflows, 30).await;
        let known: BTreeSet<RunId> = rows.iter().map(|row| row.id).collect();
        for status in STATUSES {
            let filter = RunFilter { status: Some(status), workflow: Some(workflows[0]), ..RunFilter::default() };
            let shown = all(runs, tenant, &filter, 4).await;
            assert!(shown.iter().all(|row| row.status == status && row.workflow == workflows[0]));
            let ids: Vec<_> = shown.iter().map(|row| row.id).collect();
            assert!(ids.is_sorted_by(|newer, older| newer > older), "each once, newest first");
            assert!(ids.iter().all(|id| known.contains(id)));
        }
    })
    .await;
}

#[tokio::test]
async fn pages_hold_while_runs_are_added() {
    everywhere(async |setup| {
        let runs = setup.store().runs();
        let (tenant, workflow) = (setup.ids.tenant(), setup.ids.workflow());
        let before = history(&setup, tenant, [workflow; 2], 12).await;
        setup.settle();
        for filter in [RunFilter::default(), RunFilter { workflow: Some(workflow), ..RunFilter::default() }] {
            let newest = runs.list(tenant, &filter, None, 1).await.unwrap().items[0].id;
            let pages = walk(async |cursor| {
                let page = runs.list(tenant, &filter, cursor, 3).await.unwrap();
                history(&setup, tenant, [workflow; 2], 1).await;
                page
            })
            .await;
            let shown = pages.concat();
            assert_eq!(shown[0].id, newest);
            let old: Vec<_> = shown.iter().filter(|row| row.id <= before[0].id).cloned().collect();
            assert_eq!(old, before, "what was there is shown once");
        }
    })
    .await;
}

#[tokio::test]
async fn a_cursor_is_good_for_its_tenant_and_filter_only() {
    let setup = Setup::memory().await;
    let runs = setup.store().runs();
    let (tenant, workflow) = (setup.ids.tenant(), setup.ids.workflow());
    history(&setup, tenant, [workflow; 2], 5).await;
    let filter = RunFilter::default();
    let cursor = runs.list(tenant, &filter, None, 2).await.unwrap().next_cursor.unwrap();
    assert_eq!(runs.list(tenant, &filter, Some(&cursor), 100).await.unwrap().items.len(), 3);
    let narrower = RunFilter { workflow: Some(workflow), ..RunFilter::default() };
    let refused = [
        runs.list(setup.ids.tenant(), &filter, Some(&cursor), 2).await,
        runs.list(tenant, &narrower, Some(&cursor), 2).await,
        runs.list(tenant, &filter, Some("AAAA"), 2).await,
        runs.list(tenant, &filter, Some("%"), 2).await,
    ];
    assert!(refused.iter().all(|page| matches!(page, Err(Error::InvalidCursor))), "{refused:?}");
}

#[tokio::test]
async fn a_page_costs_the_same_however_long_the_history_is() {
    let setup = Setup::memory().await;
    let runs = setup.store().runs();
    let (tenant, workflow) = (setup.ids.tenant(), setup.ids.workflow());
    let rare = setup.run(tenant, setup.ids.workflow());
    runs.create(&rare, None).await.unwrap();
    let mut claims = Vec::new();
    for _ in 0..2_000 {
        claims.push(setup.run(tenant, workflow));
    }
    for group in claims.chunks(100) {
        futures::future::try_join_all(group.iter().map(async |claimed| {
            let row = ended(claimed, RunStatus::Succeeded, setup.clock.now());
            runs.create(&row, None).await
        }))
        .await
        .unwrap();
    }
    let filters = [
        RunFilter::default(),
        RunFilter { status: Some(RunStatus::Running), ..RunFilter::default() },
        RunFilter { status: Some(RunStatus::Failed), ..RunFilter::default() },
        RunFilter { workflow: Some(workflow), status: Some(RunStatus::Running), ..RunFilter::default() },
        RunFilter { to: Some(start()), ..RunFilter::default() },
        RunFilter { from: Some(Timestamp::MAX), ..RunFilter::default() },
    ];
    for filter in filters {
        setup.embedded.meter.restart(true);
        runs.list(tenant, &filter, None, 50).await.unwrap();
        let (calls, units) = (setup.embedded.meter.all_calls(), setup.embedded.meter.read_units());
        assert!(calls.values().sum::<u64>() <= 40, "{filter:?}: {calls:?}");
        assert!(units <= 200.0, "{filter:?}: {units} units");
    }
    let running = RunFilter { status: Some(RunStatus::Running), ..RunFilter::default() };
    let pages = walk(async |cursor| runs.list(tenant, &running, cursor, 50).await.unwrap()).await;
    assert!(pages.len() > 2 && pages[0].is_empty(), "short pages lead on");
    assert_eq!(pages.concat(), [rare]);
}
