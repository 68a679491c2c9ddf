//! Prefixed, time-sortable ids. Each is a UUIDv7 (RFC 9562, section 5.7) written as prefix + 32 lower-case hex
//! digits, so that ids of one kind sort by the millisecond in which they were made.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// How many partitions a tenant's runs are spread over. Listing merges them; together they take 1,000 writes a
/// second each (the limit of one DynamoDB partition).
pub const RUN_SHARDS: u8 = 8;

/// A string that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {prefix}<32 hex digits>")]
pub struct IdError {
    prefix: &'static str,
}

fn uuid_from(at: Timestamp, entropy: [u8; 10]) -> Uuid {
    let ms = u64::try_from(at.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(ms, &entropy).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from the time and 80 bits of entropy (74 of which are used).
            pub fn new(at: Timestamp, entropy: [u8; 10]) -> Self {
                Self(uuid_from(at, entropy))
            }

            /// The id with these bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the UUID.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// When the id was made, to the millisecond.
            pub fn timestamp(&self) -> Timestamp {
                let mut ms = [0_u8; 8];
                ms[2..].copy_from_slice(&self.0.as_bytes()[..6]);
                Timestamp::from_millisecond(i64::from_be_bytes(ms)).unwrap_or(Timestamp::UNIX_EPOCH)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { prefix: $prefix };
                let hex = text.strip_prefix($prefix).ok_or_else(|| error.clone())?;
                let canonical = hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if !canonical {
                    return Err(error);
                }
                Uuid::try_parse(hex).map(Self).map_err(|_| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-9a-f]{32}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    )*};
}

ids! {
    /// A tenant: the organization that every record belongs to.
    TenantId = "ten_";
    /// A person who signs in.
    UserId = "usr_";
    /// A workflow. It is also the unguessable part of its webhook's URL.
    WorkflowId = "wf_";
    /// A run. Besides the time it carries the shard of its row and a tag of its tenant.
    RunId = "run_";
    /// A stored credential.
    ConnectionId = "conn_";
    /// A machine's account in a tenant.
    ServiceAccountId = "svc_";
    /// An API key, which is also an OAuth 2.0 client: not the secret, only its name.
    ApiKeyId = "key_";
    /// One sign-in of a person, from login to logout, over all refreshes.
    SessionId = "ses_";
    /// An invitation into a tenant.
    InvitationId = "inv_";
    /// An entry of the audit log.
    AuditId = "aud_";
}

impl TenantId {
    /// No tenant's: what the installation sends and arms for itself.
    pub const NONE: Self = Self(Uuid::nil());
}

impl WorkflowId {
    /// The workflow of a run that nobody knows more of than its id.
    pub const UNKNOWN: Self = Self(Uuid::nil());
}

impl RunId {
    /// Makes the id of a tenant's run: byte 9 is the shard's source, bytes 10 to 12 tag the tenant, the other
    /// random bits are entropy. The same arguments give the same id, which is how a schedule's firing is one run.
    pub fn for_tenant(tenant: TenantId, at: Timestamp, entropy: [u8; 10]) -> Self {
        let mut bytes = *uuid_from(at, entropy).as_bytes();
        bytes[10..13].copy_from_slice(&tenant.as_bytes()[13..16]);
        Self(Uuid::from_bytes(bytes))
    }

    /// The partition of the tenant's runs that this one's row lies in: `0..RUN_SHARDS`.
    pub fn shard(&self) -> u8 {
        self.0.as_bytes()[9] % RUN_SHARDS
    }

    /// Whether the id was made for this tenant. It proves nothing (24 bits, not secret): it only tells a run that
    /// waits in the queue without a row from an id that was never given out.
    pub fn is_tagged_for(&self, tenant: TenantId) -> bool {
        self.0.as_bytes()[10..13] == tenant.as_bytes()[13..16]
    }

    /// The smallest id of a millisecond; with [`RunId::last_at`] it bounds a range of time.
    pub fn first_at(at: Timestamp) -> Self {
        Self(uuid_from(at, [0; 10]))
    }

    /// The largest id of a millisecond.
    pub fn last_at(at: Timestamp) -> Self {
        Self(uuid_from(at, [0xff; 10]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn text_form_round_trips_and_sorts_by_time() {
        let early = WorkflowId::new(at(1_700_000_000_000), [0xff; 10]);
        let late = WorkflowId::new(at(1_700_000_000_001), [0; 10]);
        assert_eq!(early.to_string().parse(), Ok(early));
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.timestamp(), at(1_700_000_000_001));
    }

    #[test]
    fn only_the_canonical_text_is_an_id() {
        let id = WorkflowId::new(at(1_700_000_000_000), [7; 10]).to_string();
        for bad in [&id.to_uppercase(), &id[..34], &format!("{id}0"), &id.replace("wf_", "run_"), &"wf_".to_owned()[..]]
        {
            assert!(bad.parse::<WorkflowId>().is_err(), "{bad}");
        }
        let hyphenated = format!("wf_{}", Uuid::from_bytes([1; 16]).hyphenated());
        assert!(hyphenated.parse::<WorkflowId>().is_err());
    }

    #[test]
    fn run_ids_carry_their_tenant_and_shard() {
        let tenant = TenantId::new(at(1), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let other = TenantId::new(at(1), [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
        let run = RunId::for_tenant(tenant, at(1_700_000_000_000), [42; 10]);
        assert!(run.is_tagged_for(tenant) && !run.is_tagged_for(other));
        assert!(run.shard() < RUN_SHARDS);
        assert!(RunId::first_at(run.timestamp()) <= run && run <= RunId::last_at(run.timestamp()));
        assert_eq!(run, RunId::for_tenant(tenant, at(1_700_000_000_000), [42; 10]));
    }
}
