//! How much was asked for lately: one row for each limit, `rate#{what}`, in `history`. It holds the time up to which the
//! limit is used up, as the generic cell rate algorithm has it
//! (<https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>), so that taking any number of tokens is one write.

use std::time::Duration;

use jiff::Timestamp;

use crate::items::{HEAD, Item, expiry, key, string, text, unlike_any_other};
use crate::tables::TTL;
use crate::write::{Condition, Outcome};
use crate::{Error, Store};

/// The time up to which the limit is used up: microseconds since 1970, in sixteen digits until the year 2286, so that texts
/// sort as numbers do.
const USED_UNTIL: &str = "until";
/// Of several who take at the same time each may have to look again once for every other.
const MAX_TRIES: u32 = 6;
/// Whoever lost that often is refused for so long: those who won took what there was to take.
const CONTENDED: Duration = Duration::from_secs(1);
/// Long enough for any limit to be whole again.
const RETENTION: Duration = Duration::from_secs(86_400);

/// How much was asked for lately.
#[derive(Debug, Clone, Copy)]
pub struct Rates<'a>(pub(crate) &'a Store);

/// A limit: tokens come in steadily, up to a number that can be taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How long it takes for a token to come in; at least a microsecond.
    pub every: Duration,
    /// The most that can be taken at once.
    pub burst: u32,
}

impl Rate {
    /// So many a second, and ten times as many at once.
    pub fn per_second(tokens: u32) -> Self {
        let every = Duration::from_secs(1) / tokens.max(1);
        Self { every: every.max(Duration::from_micros(1)), burst: tokens.saturating_mul(10) }
    }

    /// Microseconds that it takes for so many tokens to come in.
    fn cost_us(self, tokens: u32) -> i64 {
        i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX).saturating_mul(i64::from(tokens))
    }

    /// How many tokens come in within so many microseconds.
    fn tokens(self, us: i64) -> u32 {
        u32::try_from(us / self.cost_us(1).max(1)).unwrap_or(0)
    }
}

/// What became of asking for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// They were there; so many more can be taken now.
    Granted {
        /// Tokens left.
        left: u32,
    },
    /// They weren't; they will have come in after this time, if nobody else takes them.
    Refused {
        /// How long that takes.
        after: Duration,
    },
}

/// A block of tokens, taken to be given out one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How many there are; none where there wasn't a single one.
    pub tokens: u32,
    /// How many more can be taken now.
    pub left: u32,
    /// Where there are none: how long it takes for one to come in.
    pub after: Duration,
    /// The limit's state, for the next call.
    pub known: i64,
}

impl Rates<'_> {
    /// Takes up to so many tokens of a limit: as many as there are. Costs what [`Rates::take`] does; one that finds none in
    /// the state that it knows costs nothing.
    ///
    /// # Errors
    /// The database is away.
    pub async fn lease(
        &self,
        limit: &str,
        rate: Rate,
        most: u32,
        now: Timestamp,
        known: Option<i64>,
    ) -> Result<Lease, Error> {
        let mut known = known;
        for _ in 0..MAX_TRIES {
            let whole = rate.cost_us(rate.burst);
            // What isn't known is thought to be unused; if it is not, the write is refused, and tells.
            let used = known.map_or(0, |known| (known - now.as_microsecond()).max(0));
            let tokens = most.min(rate.tokens((whole - used).max(0))).max(1);
            match self.take(limit, rate, tokens, now, known).await? {
                (Taken::Granted { left }, known) => {
                    return Ok(Lease { tokens, left, after: Duration::ZERO, known });
                }
                (Taken::Refused { after }, now_known) if tokens == 1 => {
                    return Ok(Lease { tokens: 0, left: 0, after, known: now_known });
                }
                // Others took meanwhile. Less is asked for each time, because what is known only grows.
                (Taken::Refused { .. }, now_known) => known = Some(now_known),
            }
        }
        Ok(Lease { tokens: 0, left: 0, after: CONTENDED, known: known.unwrap_or(now.as_microsecond()) })
    }

    /// Takes tokens of a limit. One write where nobody else took since `known`, the state that the last call gave back; one
    /// more for each who did, and refused where too many did. Without `known` it is one where the limit is whole, whether it was
    /// ever used or not.
    ///
    /// # Errors
    /// The database is away.
    pub async fn take(
        &self,
        limit: &str,
        rate: Rate,
        tokens: u32,
        now: Timestamp,
        known: Option<i64>,
    ) -> Result<(Taken, i64), Error> {
        const OPERATION: &str = "take from a rate limit";
        let now_us = now.as_microsecond();
        let table = self.0.history_table();
        let mut known = known;
        for _ in 0..MAX_TRIES {
            let used_until = known.unwrap_or(now_us).max(now_us);
            let next = used_until + rate.cost_us(tokens);
            let over = next - now_us - rate.cost_us(rate.burst);
            if over > 0 {
                // What is known may be older than what is stored, but never younger: others only take.
                let after = Duration::from_micros(over.unsigned_abs());
                return Ok((Taken::Refused { after }, used_until));
            }
            let condition = match known {
                Some(known) => Condition::Equals(vec![(USED_UNTIL, text(known))]),
                None => Condition::AbsentOrUpTo(USED_UNTIL, text(now_us)),
            };
            let item = row(limit, next, now);
            match self.0.put(OPERATION, table, || Ok(item.clone()), condition).await? {
                Outcome::Written => {
                    let left = rate.tokens(rate.cost_us(rate.burst) - (next - now_us));
                    return Ok((Taken::Granted { left }, next));
                }
                Outcome::Refused(Some(stored)) => {
                    let stored = string(OPERATION, &stored, USED_UNTIL)?.parse::<i64>();
                    let unreadable = |source: std::num::ParseIntError| Error::Corrupt {
                        operation: OPERATION,
                        what: USED_UNTIL,
                        source: source.into(),
                    };
                    known = Some(stored.map_err(unreadable)?);
                }
                // Swept meanwhile.
                Outcome::Refused(None) => known = None,
            }
        }
        Ok((Taken::Refused { after: CONTENDED }, known.unwrap_or(now_us)))
    }

    /// Gives tokens back that were taken last, unless somebody else took meanwhile: for what turned out not to count.
    ///
    /// # Errors
    /// The database is away.
    pub async fn give_back(
        &self,
        limit: &str,
        rate: Rate,
        tokens: u32,
        now: Timestamp,
        known: i64,
    ) -> Result<(), Error> {
        const OPERATION: &str = "give back to a rate limit";
        let item = row(limit, known - rate.cost_us(tokens), now);
        let unchanged = Condition::Equals(vec![(USED_UNTIL, text(known))]);
        self.0.put(OPERATION, self.0.history_table(), || Ok(item.clone()), unchanged).await.map(drop)
    }
}

fn row(limit: &str, used_until: i64, now: Timestamp) -> Item {
    let mut item = key(partition(limit), HEAD);
    item.insert(USED_UNTIL.to_owned(), text(used_until));
    item.insert(TTL.to_owned(), expiry(now, RETENTION));
    unlike_any_other(item)
}

fn partition(limit: &str) -> String {
    format!("rate#{limit}")
}
