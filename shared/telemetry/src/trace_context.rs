//! W3C trace context, level 1 (<https://www.w3.org/TR/trace-context-1/>): the `traceparent` header; and the same as AWS
//! X-Ray writes it (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).

use std::fmt;
use std::str::FromStr;

/// Where in a distributed trace some work stands: the trace, the span that caused or is the work, and whether the trace
/// is sampled. Its text form is a `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

/// A text that is no `traceparent`; as the specification has it, a receiver then starts a trace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// The first span of a new trace, sampled.
    pub fn new_root() -> Self {
        Self { trace_id: random(), span_id: random(), sampled: true }
    }

    /// A new span of the same trace, caused by this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: random(), ..*self }
    }

    /// The same as X-Ray's tracing header has it, such as SQS's `AWSTraceHeader`: the trace's id in two parts.
    pub fn to_xray(&self) -> String {
        let trace_id = self.trace_id();
        let (epoch, unique) = trace_id.split_at(8);
        format!("Root=1-{epoch}-{unique};Parent={};Sampled={}", hex(&self.span_id), u8::from(self.sampled))
    }

    /// Reads X-Ray's tracing header: `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`, in any
    /// order, with other fields between. One without a parent, as a front door writes it, gets a span of its own.
    pub fn from_xray(header: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = header.split(';').filter_map(|field| field.trim().split_once('='));
            fields.find(|(of, _)| *of == name).map(|(_, value)| value)
        };
        let (epoch, unique) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
        let trace_id: [u8; 16] = match (epoch.len(), unique.len()) {
            (8, 24) => bytes(format!("{epoch}{unique}").as_bytes()).ok()?,
            _ => return None,
        };
        let span_id = match field("Parent") {
            Some(parent) if parent.len() == 16 => bytes(parent.as_bytes()).ok()?,
            Some(_) => return None,
            None => random(),
        };
        let known = trace_id != [0; 16] && span_id != [0; 8];
        known.then_some(Self { trace_id, span_id, sampled: field("Sampled") == Some("1") })
    }

    /// The trace's id: 32 lower-case hex digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", hex(&self.trace_id), hex(&self.span_id), u8::from(self.sampled))
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    /// Reads version 00 strictly, and of a later version what version 00 knows of it.
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let text = text.as_bytes();
        if text.len() < 55 || [2, 35, 52].iter().any(|dash| text[*dash] != b'-') {
            return Err(InvalidTraceparent);
        }
        let [version] = bytes(&text[..2])?;
        let complete = text.len() == 55 || (version > 0 && text[55] == b'-');
        let trace_id = bytes(&text[3..35])?;
        let span_id = bytes(&text[36..52])?;
        let [flags] = bytes(&text[53..55])?;
        if version == 0xff || !complete || trace_id == [0; 16] || span_id == [0; 8] {
            return Err(InvalidTraceparent);
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// Random bytes that aren't all zero, which the specification forbids for ids.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    while bytes == [0; N] {
        #[expect(clippy::expect_used, reason = "a system without randomness can make no ids")]
        getrandom::fill(&mut bytes).expect("the system's random number generator failed");
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn bytes<const N: usize>(hex: &[u8]) -> Result<[u8; N], InvalidTraceparent> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidTraceparent),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_examples_round_trip() {
        for text in [SAMPLED, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"] {
            assert_eq!(text.parse::<TraceContext>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for text in
            [SAMPLED.replacen("00", "cc", 1), format!("{}-what-the-future-brings", SAMPLED.replacen("00", "cc", 1))]
        {
            assert_eq!(text.parse::<TraceContext>().unwrap().to_string(), SAMPLED);
        }
        let unknown_flags = SAMPLED.replace("-01", "-ff").parse::<TraceContext>().unwrap();
        assert_eq!(unknown_flags.to_string(), SAMPLED, "unknown flags are sent on as zero");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "00",
            &SAMPLED[..54],
            &format!("{SAMPLED}-more"),
            &format!("{}.more", SAMPLED.replacen("00", "cc", 1)),
            &SAMPLED.replacen("00", "ff", 1),
            &SAMPLED.replacen("00", "0x", 1),
            &SAMPLED.replace("4bf9", "4BF9"),
            &SAMPLED.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &SAMPLED.replace("00f067aa0ba902b7", "0000000000000000"),
            &SAMPLED.replace('-', "_"),
            &SAMPLED.replace("-01", "-0g"),
            &format!(" {SAMPLED}"),
            &SAMPLED.replace("4bf9", "é9"),
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(InvalidTraceparent), "{bad}");
        }
    }

    #[test]
    fn x_rays_header_is_the_same_trace() {
        let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let trace = TraceContext::from_xray(xray).unwrap();
        assert_eq!(trace.to_string(), "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01");
        assert_eq!(trace.to_xray(), xray);
        let of_a_front_door = "Self=1-67891234-12456789abcdef012345678;Root=1-5759e988-bd862e3fe1be46a994272793";
        assert_eq!(TraceContext::from_xray(of_a_front_door).unwrap().trace_id(), trace.trace_id());
        let unsampled = xray.replace("Sampled=1", "Sampled=0;Lineage=1:a87bd80c:0");
        assert!(TraceContext::from_xray(&unsampled).unwrap().to_string().ends_with("-00"));
    }

    #[test]
    fn what_is_no_header_of_x_rays_is_refused() {
        for bad in [
            "",
            "Root=",
            "Parent=53995c3f42cd8ad8",
            "Root=2-5759e988-bd862e3fe1be46a994272793",
            "Root=1-5759e988-bd862e3fe1be46a99427279",
            "Root=1-5759e98-bd862e3fe1be46a9942727930",
            "Root=1-00000000-000000000000000000000000",
            "Root=1-5759e988-bd862e3fe1be46a99427279é",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=0000000000000000",
        ] {
            assert_eq!(TraceContext::from_xray(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace() {
        let root = TraceContext::new_root();
        let child = root.child();
        assert_eq!(child.trace_id(), root.trace_id());
        assert_ne!(child, root);
        assert_eq!(child.to_string().parse(), Ok(child));
        assert_ne!(TraceContext::new_root().trace_id(), root.trace_id());
    }
}
