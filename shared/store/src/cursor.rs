//! Cursors of lists: the position after which the next page begins, and a mark of the tenant and query it is good for.
//! Nothing in it is secret or trusted: the tenant always comes from the caller.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Error;

/// No sort key is longer
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>).
const MAX_POSITION_BYTES: usize = 1024;

/// A list's position as an opaque text. `query` is everything that the list depends on, the tenant included.
pub(crate) fn encode(query: &str, position: &str) -> String {
    let mut bytes = mark(query).to_be_bytes().to_vec();
    bytes.extend_from_slice(position.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position in a cursor that [`encode`] made for the same query.
pub(crate) fn decode(query: &str, cursor: &str) -> Result<String, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| Error::InvalidCursor)?;
    let (marked, position) = bytes.split_first_chunk().ok_or(Error::InvalidCursor)?;
    if u64::from_be_bytes(*marked) != mark(query) {
        return Err(Error::InvalidCursor);
    }
    if position.len() > MAX_POSITION_BYTES {
        return Err(Error::InvalidCursor);
    }
    String::from_utf8(position.to_vec()).map_err(|_| Error::InvalidCursor)
}

/// FNV-1a (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>), because it is the same in every build.
fn mark(query: &str) -> u64 {
    query.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
