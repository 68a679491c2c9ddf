//! `multipart/form-data` (RFC 7578): fields as a form's, and the files beside them.

use std::convert::Infallible;
use std::future::ready;

use bytes::Bytes;
use futures::{FutureExt as _, stream};
use http::HeaderMap;
use http::header::CONTENT_DISPOSITION;
use multer::{Error, Field, Multipart};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use tidegate_http::StartBody;
use tidegate_model::check_json_value;

use super::{ReadBody, ReceivedFile, add, media_type, parameter};

const MAX_FILES: usize = 20;
const MAX_PARTS: usize = 10_000;
/// Names and values of one part's headers.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// RFC 2046, section 5.1.1.
const MAX_BOUNDARY_BYTES: usize = 70;
const MAX_FILENAME_CHARS: usize = 200;
/// The name of a file's field: it goes with the run, as the file's name does.
const MAX_FIELD_BYTES: usize = 200;

/// The fields as an object of strings, one that comes again as the list of its values; what has a file name as a file.
pub(super) fn read(content_type: &str, body: &Bytes) -> Result<ReadBody, String> {
    let boundary = parameter(content_type, "boundary").unwrap_or_default();
    if !is_boundary(&boundary) {
        return Err(format!(
            "The body is multipart/form-data, but its content type gives no boundary between the parts: boundary=, and 1 \
             to {MAX_BOUNDARY_BYTES} characters that RFC 2046 allows. Leave the content type to your HTTP library."
        ));
    }
    // All of the body is there, so nothing is ever waited for.
    let read = parts(&boundary, body).now_or_never();
    read.unwrap_or_else(|| Err("The multipart body breaks off.".to_owned()))
}

async fn parts(boundary: &str, body: &Bytes) -> Result<ReadBody, String> {
    let mut multipart = Multipart::new(stream::once(ready(Ok::<_, Infallible>(body.clone()))), boundary);
    let (mut fields, mut files) = (Map::new(), Vec::new());
    for number in 1.. {
        let malformed = |error: Error| malformed(&error, boundary, number);
        let Some(field) = multipart.next_field().await.map_err(malformed)? else { break };
        if number > MAX_PARTS {
            return Err(format!("The multipart body has more than {MAX_PARTS} parts."));
        }
        let part = Part::of(&field).map_err(|reason| format!("Part {number} of the multipart body {reason}."))?;
        match part.filename {
            Some(filename) => {
                let bytes = field.bytes().await.map_err(malformed)?;
                // What a browser sends where no file was chosen.
                if filename.is_empty() && bytes.is_empty() {
                    continue;
                }
                if files.len() == MAX_FILES {
                    return Err(format!("The multipart body has more than {MAX_FILES} files."));
                }
                let filename = safe_filename(&filename);
                files.push(ReceivedFile { field: part.name, filename, content_type: part.content_type, bytes });
            }
            None => add(&mut fields, part.name, Value::String(field.text().await.map_err(malformed)?)),
        }
    }
    let fields = Value::Object(fields);
    check_json_value(&fields).map_err(|error| format!("The multipart body has {error}."))?;
    Ok(ReadBody { body: StartBody::Value(fields), files })
}

/// What a part's headers say.
struct Part {
    name: String,
    filename: Option<String>,
    content_type: Option<String>,
}

impl Part {
    fn of(field: &Field<'_>) -> Result<Self, String> {
        let headers: &HeaderMap = field.headers();
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > MAX_HEADER_BYTES {
            return Err(format!("has more than {MAX_HEADER_BYTES} bytes of headers"));
        }
        let disposition = headers.get(CONTENT_DISPOSITION).ok_or("has no Content-Disposition")?;
        let disposition = String::from_utf8_lossy(disposition.as_bytes());
        let name = parameter(&disposition, "name").ok_or("has no name in its Content-Disposition")?;
        let filename = parameter(&disposition, "filename")
            .or_else(|| parameter(&disposition, "filename*").map(|extended| decoded(&extended)));
        if filename.is_some() && name.len() > MAX_FIELD_BYTES {
            return Err(format!("is a file in a field whose name has more than {MAX_FIELD_BYTES} bytes"));
        }
        Ok(Self { name, filename, content_type: media_type(headers) })
    }
}

/// The name in `UTF-8'en'a%20b` (RFC 8187), which a form should not have and some have all the same.
fn decoded(extended: &str) -> String {
    let name = extended.splitn(3, '\'').last().unwrap_or_default();
    percent_decode_str(name).decode_utf8_lossy().into_owned()
}

/// A name that leads nowhere and shows as what it is.
pub(crate) fn safe_filename(filename: &str) -> String {
    let last = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    // Controls, and what makes a name read backwards.
    let is_hidden = |char: char| {
        char.is_control()
            || matches!(char, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let plain: String = last.chars().filter(|char| !is_hidden(*char)).take(MAX_FILENAME_CHARS).collect();
    match plain.trim() {
        "" | "." | ".." => "file".to_owned(),
        name => name.to_owned(),
    }
}

fn is_boundary(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=MAX_BOUNDARY_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) && !text.ends_with(' ')
}

fn malformed(error: &Error, boundary: &str, part: usize) -> String {
    match error {
        Error::ReadHeaderFailed(_) | Error::DecodeHeaderName { .. } | Error::DecodeHeaderValue { .. } => {
            format!("Part {part} of the multipart body has malformed headers.")
        }
        _ => format!(
            "The multipart body breaks off or is malformed from part {part} on: each part begins after a line \
             `--{boundary}`, and the last one ends with `--{boundary}--`."
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CONTENT_TYPE: &str = "multipart/form-data; boundary=XX";

    fn part(headers: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
        [b"--XX\r\n", headers.as_bytes(), b"\r\n\r\n", content.as_ref(), b"\r\n"].concat()
    }

    fn field(name: &str, value: &str) -> Vec<u8> {
        part(&format!("Content-Disposition: form-data; name=\"{name}\""), value)
    }

    fn body(parts: &[Vec<u8>]) -> Vec<u8> {
        [&parts.concat(), &b"--XX--\r\n"[..]].concat()
    }

    fn read(body: &[u8]) -> Result<(Value, Vec<ReceivedFile>), String> {
        let read = super::read(CONTENT_TYPE, &Bytes::copy_from_slice(body))?;
        let StartBody::Value(value) = read.body else { return Err("is no value".to_owned()) };
        Ok((value, read.files))
    }

    #[test]
    fn fields_are_a_forms_and_files_stand_beside_them() {
        let sent = body(&[
            field("user", "Alex \u{e9}"),
            field("order", r#"{"id": 1, "files": [{"filename": "x"}]}"#),
            part(
                "content-disposition: form-data; NAME=photo; filename=\"a b.png\"\r\nContent-Type: Image/PNG; x=y",
                b"\x89PNG\r\n--X\r\n",
            ),
            field("user", "Kim"),
            part("Content-Disposition: form-data; name=\"photo\"; filename=\"two.bin\"\r\nContent-Type: nonsense", b""),
            part(
                "Content-Disposition: form-data; name=\"none\"; filename=\"\"\r\nContent-Type: application/octet-stream",
                b"",
            ),
            part(
                "Content-Disposition: form-data; name=\"latin\"\r\nContent-Type: text/plain; charset=iso-8859-1",
                b"\xe9",
            ),
        ]);
        let (value, files) = read(&sent).unwrap();
        let order = r#"{"id": 1, "files": [{"filename": "x"}]}"#;
        assert_eq!(value, json!({"user": ["Alex \u{e9}", "Kim"], "order": order, "latin": "\u{e9}"}));
        let file = |filename: &str, content_type: Option<&str>, bytes: &'static [u8]| ReceivedFile {
            field: "photo".to_owned(),
            filename: filename.to_owned(),
            content_type: content_type.map(str::to_owned),
            bytes: Bytes::from_static(bytes),
        };
        assert_eq!(
            files,
            [file("a b.png", Some("image/png"), b"\x89PNG\r\n--X\r\n"), file("two.bin", None, b"")],
            "in order, whatever their bytes look like"
        );
        assert_eq!(read(b"--XX--\r\n"), Ok((json!({}), vec![])));
        assert_eq!(
            read(b"preamble\r\n--XX  \r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--XX--epilogue").unwrap().0,
            json!({"a": "1"})
        );
    }

    #[test]
    fn no_name_leads_anywhere() {
        let long = format!("{}.txt", "\u{e9}".repeat(300));
        for (filename, shown) in [
            ("../../etc/passwd", "passwd"),
            ("..\\\\..\\\\windows\\\\system.ini", "system.ini"),
            ("C:\\temp\\a.txt", "a.txt"),
            ("..", "file"),
            (".", "file"),
            ("a/..", "file"),
            ("dir/", "file"),
            (".\u{85}.", "file"),
            ("...", "..."),
            (".htaccess", ".htaccess"),
            (" a\tb .txt ", "ab .txt"),
            ("photo\u{202e}gpj.exe", "photogpj.exe"),
            ("\\\"x\\\".txt", "\"x\".txt"),
            ("%2e%2e%2fa", "%2e%2e%2fa"),
            (&long, &"\u{e9}".repeat(200)),
        ] {
            let headers = format!("Content-Disposition: form-data; name=\"f\"; filename=\"{filename}\"");
            let (value, files) = read(&body(&[part(&headers, "x")])).unwrap();
            assert_eq!((value, files[0].filename.as_str()), (json!({}), shown), "{filename}");
        }
        for (parameter, shown) in [
            ("filename*=UTF-8''..%2F%E2%82%AC%20rates.txt", "\u{20ac} rates.txt"),
            ("filename=plain.txt; filename*=UTF-8''other.txt", "plain.txt"),
            ("filename=", "file"),
        ] {
            let headers = format!("Content-Disposition: form-data; name=\"f\"; {parameter}");
            assert_eq!(read(&body(&[part(&headers, "x")])).unwrap().1[0].filename, shown, "{parameter}");
        }
    }

    #[test]
    fn a_field_cant_pose_as_a_file() {
        let posed = part("Content-Disposition: form-data; name=\"a; filename=b\"", "x");
        assert_eq!(read(&body(&[posed])), Ok((json!({"a; filename=b": "x"}), vec![])));
        let files = field("files", r#"[{"filename": "b", "path": "upload:run_1/0"}]"#);
        let (value, none) = read(&body(&[files])).unwrap();
        assert!(value["files"].is_string() && none.is_empty());
    }

    #[test]
    fn what_breaks_off_or_has_other_boundaries_is_refused() {
        let whole = body(&[field("a", "1"), part("Content-Disposition: form-data; name=f; filename=g", "content")]);
        let end = whole.len() - 2;
        assert!(read(&whole[..end]).is_ok());
        for length in 0..end {
            let error = read(&whole[..length]).unwrap_err();
            assert!(error.contains("breaks off or is malformed from part"), "{length}: {error}");
        }
        for broken in [
            &b"--XXY\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--XXY--"[..],
            b"--XX\nContent-Disposition: form-data; name=a\n\n1\n--XX--",
            b"--XX-\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--XX--",
        ] {
            assert!(read(broken).unwrap_err().contains("malformed from part 1 on"), "{broken:?}");
        }
        // A longer boundary that begins like this one ends no part silently.
        let inner = body(&[field("a", "1\r\n--XXY\r\n")]);
        assert!(read(&inner).unwrap_err().contains("malformed from part 2 on"));
        for (headers, reason) in [
            ("Content-Type: text/plain", "Part 1 of the multipart body has no Content-Disposition."),
            ("Content-Disposition: form-data", "Part 1 of the multipart body has no name in its Content-Disposition."),
            (
                "Content-Disposition: form-data; name=\"a",
                "Part 1 of the multipart body has no name in its Content-Disposition.",
            ),
            ("no header", "Part 1 of the multipart body has malformed headers."),
        ] {
            assert_eq!(read(&body(&[part(headers, "x")])), Err(reason.to_owned()));
        }
    }

    #[test]
    fn the_boundary_is_given_and_bounded() {
        let of = |content_type: &str| super::read(content_type, &Bytes::from(body(&[field("a", "1")])));
        for good in ["multipart/form-data; boundary=\"XX\"", "multipart/form-data; charset=utf-8; Boundary=XX"] {
            assert!(of(good).is_ok(), "{good}");
        }
        let long = format!("multipart/form-data; boundary={}", "X".repeat(71));
        for bad in [
            "multipart/form-data",
            "multipart/form-data; boundary",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"X X ",
            "multipart/form-data; boundary=X\\X",
            "multipart/form-data; boundary=X@X",
            &long,
        ] {
            assert!(of(bad).unwrap_err().contains("gives no boundary"), "{bad}");
        }
        // Java's, which should be in quotes and isn't.
        let java = "multipart/form-data; boundary=----=_Part_1_2.3";
        let sent = "------=_Part_1_2.3\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n------=_Part_1_2.3--";
        assert!(super::read(java, &Bytes::from(sent)).is_ok());
    }

    #[test]
    fn parts_files_and_headers_are_bounded() {
        let file = || part("Content-Disposition: form-data; name=f; filename=g", "x");
        let files = |count: usize| body(&vec![file(); count]);
        assert_eq!(read(&files(20)).unwrap().1.len(), 20);
        assert_eq!(read(&files(21)), Err("The multipart body has more than 20 files.".to_owned()));
        let named = |bytes: usize| {
            let headers = format!("Content-Disposition: form-data; filename=g; name={}", "f".repeat(bytes));
            read(&body(&[part(&headers, "x")]))
        };
        assert_eq!(named(200).unwrap().1.len(), 1);
        let long = "Part 1 of the multipart body is a file in a field whose name has more than 200 bytes.";
        assert_eq!(named(201), Err(long.to_owned()));
        let fields = |count: usize| body(&vec![field("a", ""); count]);
        assert_eq!(read(&fields(10_000)).unwrap().0["a"].as_array().unwrap().len(), 10_000);
        for count in [10_001, 100_001] {
            assert_eq!(read(&fields(count)), Err("The multipart body has more than 10000 parts.".to_owned()));
        }
        let padded = |bytes: usize| {
            let headers = format!("Content-Disposition: form-data; name=a\r\nx: {}", "x".repeat(bytes));
            read(&body(&[part(&headers, "")]))
        };
        assert!(padded(8_000).is_ok());
        assert_eq!(padded(8_192), Err("Part 1 of the multipart body has more than 8192 bytes of headers.".to_owned()));
        let many = "x: y\r\n".repeat(40) + "Content-Disposition: form-data; name=a";
        assert_eq!(
            read(&body(&[part(&many, "")])),
            Err("Part 1 of the multipart body has malformed headers.".to_owned())
        );
        let reserved = field("$serde_json::private::RawValue", "[]");
        assert!(read(&body(&[reserved])).unwrap_err().contains("reserved"));
    }
}
