//! Envelope encryption of secrets under a tenant's data key.

/// Seals and opens secrets; keeps opened data keys for minutes.
pub struct Envelope {}
