//! Whose turn it is: groups with the fewest messages in flight first, among equals the one served longest ago.

use std::collections::{BTreeSet, HashMap};

use super::Group;

/// The groups of one queue that have visible or in-flight messages. Every operation is logarithmic in their number.
#[derive(Debug, Default)]
pub(super) struct Groups {
    loads: HashMap<Group, Load>,
    /// The groups with visible messages, by (in flight, turn).
    order: BTreeSet<(u64, u64, Group)>,
    turns: u64,
    visible: u64,
    in_flight: u64,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    visible: u64,
    in_flight: u64,
    turn: u64,
}

impl Groups {
    pub(super) fn visible(&self) -> u64 {
        self.visible
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The group to serve next, and whether it is the only one with visible messages.
    pub(super) fn next(&self) -> Option<(Group, bool)> {
        self.order.first().map(|&(_, _, group)| (group, self.order.len() == 1))
    }

    /// Messages became visible that weren't in flight.
    pub(super) fn arrived(&mut self, group: Group, count: u64) {
        self.change(group, |load| load.visible += count);
    }

    /// One visible message is in flight now; the group goes to the end of its class.
    pub(super) fn taken(&mut self, group: Group) {
        self.turns += 1;
        let turn = self.turns;
        self.change(group, |load| {
            load.visible = load.visible.saturating_sub(1);
            load.in_flight += 1;
            load.turn = turn;
        });
    }

    /// One message in flight is visible again.
    pub(super) fn returned(&mut self, group: Group) {
        self.change(group, |load| {
            load.in_flight = load.in_flight.saturating_sub(1);
            load.visible += 1;
        });
    }

    /// One message in flight is gone from this queue.
    pub(super) fn finished(&mut self, group: Group) {
        self.change(group, |load| load.in_flight = load.in_flight.saturating_sub(1));
    }

    /// One visible message is gone from this queue.
    pub(super) fn removed(&mut self, group: Group) {
        self.change(group, |load| load.visible = load.visible.saturating_sub(1));
    }

    /// Counts messages that are in flight as they are found in the file.
    pub(super) fn found_in_flight(&mut self, group: Group, count: u64) {
        self.change(group, |load| load.in_flight += count);
    }

    fn change(&mut self, group: Group, change: impl FnOnce(&mut Load)) {
        let turn = self.turns;
        let load = self.loads.entry(group).or_insert(Load { visible: 0, in_flight: 0, turn });
        let before = *load;
        change(load);
        let after = *load;
        if before.visible > 0 {
            self.order.remove(&(before.in_flight, before.turn, group));
        }
        if after.visible > 0 {
            self.order.insert((after.in_flight, after.turn, group));
        } else if after.in_flight == 0 {
            self.loads.remove(&group);
        }
        self.visible = self.visible - before.visible + after.visible;
        self.in_flight = self.in_flight - before.in_flight + after.in_flight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Group = [1; 16];
    const B: Group = [2; 16];
    const C: Group = [3; 16];

    fn take(groups: &mut Groups, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                let (group, _) = groups.next().unwrap();
                groups.taken(group);
                group[0]
            })
            .collect()
    }

    #[test]
    fn a_backlog_takes_turns_with_the_others() {
        let mut groups = Groups::default();
        groups.arrived(A, 100);
        assert_eq!(take(&mut groups, 3), [1, 1, 1]);
        groups.arrived(B, 3);
        groups.arrived(C, 1);
        // B and C catch up with A's three in flight, then A and B alternate.
        assert_eq!(take(&mut groups, 6), [2, 3, 2, 2, 1, 1]);
        assert_eq!((groups.visible(), groups.in_flight()), (95, 9));
    }

    #[test]
    fn with_one_in_flight_at_a_time_groups_alternate() {
        let mut groups = Groups::default();
        groups.arrived(A, 10);
        groups.arrived(B, 10);
        let mut served = Vec::new();
        for _ in 0..6 {
            let (group, alone) = groups.next().unwrap();
            assert!(!alone);
            groups.taken(group);
            groups.finished(group);
            served.push(group[0]);
        }
        assert_eq!(served, [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn groups_without_messages_take_no_memory() {
        let mut groups = Groups::default();
        groups.arrived(A, 1);
        groups.arrived(B, 1);
        groups.taken(A);
        groups.returned(A);
        groups.removed(A);
        groups.taken(B);
        groups.finished(B);
        assert!(groups.loads.is_empty() && groups.order.is_empty() && groups.next().is_none());
    }
}
