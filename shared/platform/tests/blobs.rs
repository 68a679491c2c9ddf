//! The contract of blobs, for the folder and for S3 (on the emulator).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::blobs::folder::upload::UploadError;
use tidegate_platform::blobs::s3::{Addressing, S3Blobs};
use tidegate_platform::blobs::{UploadLink, attachment};
use tidegate_platform::{Blobs, Clock, Ids};
use tidegate_testing::emulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a link brings: the content and the value of `Content-Disposition`.
type Downloaded = Option<(Bytes, String)>;

/// `follow`: what somebody downloads who has a link. `send`: the status that answers somebody's upload.
async fn contract(
    blobs: &dyn Blobs,
    follow: impl AsyncFn(&str) -> Downloaded,
    send: impl AsyncFn(&UploadLink, Bytes) -> u16,
) {
    let get = async |key: &str| blobs.get(key).await.unwrap();
    let size = async |key: &str| blobs.size(key).await.unwrap();
    let big = Bytes::from((0..3_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    let empty = Bytes::new();

    assert_eq!(get("live/ten_a/run_1/input").await, None);
    assert_eq!(size("live/ten_a/run_1/input").await, None);
    for bytes in [&big, &empty, &Bytes::from_static(b"small")] {
        blobs.put("live/ten_a/run_1/input", bytes.clone()).await.unwrap();
        assert_eq!(get("live/ten_a/run_1/input").await.as_ref(), Some(bytes), "the latest, whole");
        assert_eq!(size("live/ten_a/run_1/input").await, Some(bytes.len() as u64));
    }
    assert_eq!(get("live/ten_b/run_1/input").await, None);
    for folder in ["live", "live/ten_a", "live/ten_a/run_1"] {
        assert_eq!((get(folder).await, size(folder).await), (None, None), "what lies below it is no blob: {folder}");
    }

    blobs.put("live/ten_a/run_1", big.clone()).await.unwrap();
    blobs.put("live/ten_a/run_1/input/deeper", big.clone()).await.unwrap();
    assert_eq!(get("live/ten_a/run_1").await, Some(big.clone()), "a key may begin another");
    assert_eq!(size("live/ten_a/run_1").await, Some(3_000_000));
    assert_eq!(blobs.get_up_to("live/ten_a/run_1", 3_000_000).await.unwrap(), Some(big.clone()));
    assert!(blobs.get_up_to("live/ten_a/run_1", 2_999_999).await.is_err(), "it is too large");
    assert_eq!(blobs.get_up_to("live/ten_a/run_2", 0).await.unwrap(), None);
    assert_eq!(get("live/ten_a/run_1/input").await, Some(Bytes::from_static(b"small")));

    let (from, to) = ("live/ten_a/run_1/input", "kept/ten_a/run_1/input");
    for _ in 0..2 {
        blobs.rename(from, to).await.unwrap();
        assert_eq!((get(from).await, get(to).await), (None, Some(Bytes::from_static(b"small"))));
    }
    blobs.put(from, Bytes::from_static(b"newer")).await.unwrap();
    blobs.rename(from, to).await.unwrap();
    assert_eq!(get(to).await, Some(Bytes::from_static(b"newer")), "a move replaces");
    blobs.rename(to, to).await.unwrap();
    assert_eq!(get(to).await, Some(Bytes::from_static(b"newer")));
    for never in ["live/never/there", "kept/never/there"] {
        assert!(blobs.rename("live/never/there", never).await.is_err());
    }

    for key in [to, "live/ten_a/run_1", "live/ten_a/run_1/input/deeper"] {
        for _ in 0..2 {
            blobs.delete(key).await.unwrap();
            assert_eq!((get(key).await, size(key).await), (None, None));
        }
    }
    copies(blobs).await;
    links(blobs, &follow).await;
    uploads(blobs, &send).await;

    let long = format!("live/{}", "x".repeat(201));
    let longer = format!("live/{}", "x/".repeat(450) + "x");
    let refused = [
        "",
        "/",
        "/live/a",
        "live/a/",
        "live//a",
        ".",
        "..",
        "live/..",
        "live/../../a",
        "../a",
        "live/./a",
        "live\\a",
        "live/a b",
        "live/a=",
        "=new/0",
        "live/%2e%2e/a",
        "live/a\0",
        "live/a\n",
        "live/ä",
        "live/~",
        "C:live",
        &long,
        &longer,
    ];
    for key in refused {
        assert!(blobs.put(key, empty.clone()).await.is_err(), "{key:?}");
        assert!(blobs.get(key).await.is_err(), "{key:?}");
        assert!(blobs.get_up_to(key, 1).await.is_err(), "{key:?}");
        assert!(blobs.size(key).await.is_err(), "{key:?}");
        assert!(blobs.link(key, HOUR, "x").await.is_err(), "{key:?}");
        assert!(blobs.upload_link(key, HOUR, 1, "a/b").await.is_err(), "{key:?}");
        assert!(blobs.copy(key, "live/x").await.is_err(), "{key:?}");
        assert!(blobs.copy("live/x", key).await.is_err(), "{key:?}");
        assert!(blobs.delete(key).await.is_err(), "{key:?}");
        assert!(blobs.rename(key, "live/x").await.is_err(), "{key:?}");
        assert!(blobs.rename("live/x", key).await.is_err(), "{key:?}");
    }
    let accepted = ["live/...", "live/.a", "live/a..b", "live/A-b_C.9", "x", &format!("live/{}", "x".repeat(200))];
    for key in accepted {
        blobs.put(key, Bytes::from(key.to_owned())).await.unwrap();
        assert_eq!(get(key).await, Some(Bytes::from(key.to_owned())));
        blobs.delete(key).await.unwrap();
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

async fn links(blobs: &dyn Blobs, follow: &impl AsyncFn(&str) -> Downloaded) {
    let (key, other) = ("files/ten_a/reports/q3.csv", "files/ten_b/reports/q3.csv");
    let link = async |key: &str, filename: &str| blobs.link(key, HOUR, filename).await.unwrap();
    let early = link(key, "early.csv").await;
    assert_eq!(follow(&early).await, None, "a link may be made before its blob");

    let (first, second) = (Bytes::from_static(b"a,b\n1,2\n"), Bytes::from_static(b"\x00\xff"));
    blobs.put(key, first.clone()).await.unwrap();
    blobs.put(other, second.clone()).await.unwrap();
    let named = |bytes: &Bytes, name: &str| Some((bytes.clone(), format!("attachment; filename=\"{name}\"")));
    assert_eq!(follow(&early).await, named(&first, "early.csv"));
    assert_eq!(follow(&link(other, "q3.csv").await).await, named(&second, "q3.csv"));
    // Names that a header can't carry as they are, or that would end in it early.
    let names = [
        ("Q3 report.csv", "filename=\"Q3 report.csv\""),
        ("Übersicht.csv", "filename=\"_bersicht.csv\"; filename*=UTF-8''%C3%9Cbersicht.csv"),
        ("a\"; filename=\"b.exe", "filename=\"a__ filename=_b.exe\"; filename*=UTF-8''a%22%3B%20filename%3D%22b.exe"),
        ("a\r\nX-Evil: 1", "filename=\"a__X-Evil: 1\"; filename*=UTF-8''a%0D%0AX-Evil%3A%201"),
        ("a%22&x=text/html#?", "filename=\"a_22&x=text/html#?\"; filename*=UTF-8''a%2522%26x%3Dtext%2Fhtml%23%3F"),
        ("", "filename=\"\""),
    ];
    for (filename, shown) in names {
        let shown = Some((first.clone(), format!("attachment; {shown}")));
        assert_eq!(follow(&link(key, filename).await).await, shown, "{filename:?}");
    }
    let longest = blobs.link(key, WEEK, "q3.csv").await.unwrap();
    assert_eq!(follow(&longest).await, named(&first, "q3.csv"));

    blobs.put(key, second.clone()).await.unwrap();
    assert_eq!(follow(&early).await, named(&second, "early.csv"), "what the blob is now");
    for key in [key, other] {
        blobs.delete(key).await.unwrap();
    }
    assert_eq!(follow(&early).await, None, "the blob is gone");
}

async fn copies(blobs: &dyn Blobs) {
    let (from, to) = ("uploads/ten_a/run_1/0", "files/ten_a/reports/q3.csv");
    let get = async |key: &str| blobs.get(key).await.unwrap();
    for key in [from, to] {
        assert!(!blobs.copy(from, key).await.unwrap(), "there is nothing to copy to {key}");
        assert_eq!(get(key).await, None);
    }
    let (first, second) = (Bytes::from(vec![7; 3_000_000]), Bytes::from_static(b"second"));
    blobs.put(from, first.clone()).await.unwrap();
    blobs.put(to, second.clone()).await.unwrap();
    assert!(!blobs.copy("uploads/ten_a/run_1", to).await.unwrap(), "what lies below it is no blob");
    assert_eq!(get(to).await, Some(second.clone()), "no copy, nothing replaced");
    for _ in 0..2 {
        assert!(blobs.copy(from, to).await.unwrap());
        assert!(blobs.copy(to, to).await.unwrap());
        assert_eq!((get(from).await, get(to).await), (Some(first.clone()), Some(first.clone())));
    }
    blobs.put(from, second.clone()).await.unwrap();
    assert_eq!(get(to).await, Some(first), "a copy is its own");
    blobs.delete(to).await.unwrap();
    assert_eq!(get(from).await, Some(second));
    blobs.delete(from).await.unwrap();
}

async fn uploads(blobs: &dyn Blobs, send: &impl AsyncFn(&UploadLink, Bytes) -> u16) {
    let key = "uploads/ten_a/run_2/0";
    let get = async |key: &str| blobs.get(key).await.unwrap();
    let (first, second) = (Bytes::from(vec![7; 3_000_000]), Bytes::from(vec![8; 3_000_000]));
    let link = blobs.upload_link(key, HOUR, 3_000_000, "image/png").await.unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers =
        [header("content-length", "3000000"), header("content-type", "image/png"), header("if-none-match", "*")];
    assert_eq!((link.method, link.headers.as_slice()), ("PUT", &headers[..]));
    assert_eq!(get(key).await, None, "a link stores nothing");
    let small = blobs.upload_link(key, HOUR, 3, "image/png").await.unwrap();
    let longer = [header("content-length", "4"), headers[1].clone(), headers[2].clone()];
    let typed = [header("content-length", "3"), header("content-type", "text/html"), headers[2].clone()];
    let untyped = [header("content-length", "3"), headers[2].clone()];
    let replacing = [header("content-length", "3"), headers[1].clone()];
    for (others, body) in [(&longer[..], "abcd"), (&typed, "abc"), (&untyped, "abc"), (&replacing, "abc")] {
        let other = UploadLink { headers: others.to_vec(), ..small.clone() };
        assert_eq!(send(&other, Bytes::from_static(body.as_bytes())).await, 403, "{others:?}");
    }
    assert_eq!(get(key).await, None, "what differs in anything is refused");

    assert_eq!(send(&link, first.clone()).await, 200);
    assert_eq!(get(key).await, Some(first.clone()));
    assert_eq!(blobs.size(key).await.unwrap(), Some(3_000_000));
    assert_eq!(send(&link, second.clone()).await, 412, "only once");
    let another = blobs.upload_link(key, WEEK, 3_000_000, "text/plain; charset=utf-8").await.unwrap();
    assert_eq!(send(&another, second.clone()).await, 412, "whatever the link");
    assert_eq!(get(key).await, Some(first));
    blobs.delete(key).await.unwrap();

    let nothing = blobs.upload_link(key, HOUR, 0, "application/octet-stream").await.unwrap();
    assert_eq!(send(&nothing, Bytes::new()).await, 200);
    assert_eq!(get(key).await, Some(Bytes::new()));
    blobs.delete(key).await.unwrap();
    assert!(blobs.upload_link(key, HOUR, 5_000_000_000, "video/mp4").await.is_ok());
    for content_type in ["", " ", "a/b\r\nx: y", "a/\u{e9}", "a/b ", &"a".repeat(201)] {
        assert!(blobs.upload_link(key, HOUR, 1, content_type).await.is_err(), "{content_type:?}");
    }
}

fn folder() -> (tempfile::TempDir, FolderBlobs, Clock) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_second(1_700_000_000).unwrap());
    let blobs = FolderBlobs::open(&folder.path().join("blobs"), clock.clone()).unwrap();
    (folder, blobs, clock)
}

/// Where links to folders begin.
const ADDRESS: &str = "https://flows.example.com/files";

fn token(link: &str) -> &str {
    link.strip_prefix(ADDRESS).unwrap().strip_prefix('/').unwrap()
}

/// Every file and folder below a folder, relative to it, sorted.
fn tree(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn in_a_folder() {
    let (folder, blobs, _) = folder();
    let blobs = blobs.with_links(ADDRESS).unwrap();
    let follow = async |link: &str| {
        let (key, filename) = blobs.linked(token(link)).unwrap();
        let bytes = blobs.get(&key).await.unwrap()?;
        Some((bytes, attachment(&filename)))
    };
    // How these are answered is `local`'s; it tests the rest.
    let send = async |link: &UploadLink, body: Bytes| {
        let upload = blobs.upload(token(&link.url)).unwrap();
        let headers = upload.headers().map(|(name, value)| (name.to_owned(), value));
        if link.headers != headers {
            return 403;
        }
        let stored = async {
            let mut receiving = upload.begin().await?;
            receiving.write(body).await?;
            receiving.finish().await
        };
        match stored.await {
            Ok(()) => 200,
            Err(UploadError::Stored) => 412,
            Err(error) => panic!("{error}"),
        }
    };
    contract(&blobs, follow, send).await;
    let left = ["=links.key", "=new", "files", "kept", "live", "uploads"];
    assert_eq!(tree(&folder.path().join("blobs")), left, "nothing is left behind");
    assert_eq!(fs::metadata(folder.path().join("blobs")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn in_s3() {
    let config = emulator::sdk_config();
    let bucket = Ids::new(Clock::system()).workflow().to_string().replace('_', "-");
    let admin = aws_sdk_s3::Config::from(&config).to_builder().force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(admin).create_bucket().bucket(&bucket).send().await.unwrap();
    let blobs = S3Blobs::new(&config, Addressing::Path, &bucket);
    contract(&blobs, download, upload).await;

    let link = blobs.upload_link("uploads/ten_a/run_1/0", HOUR, 3, "image/png").await.unwrap();
    assert!(
        link.url.contains("X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost%3Bif-none-match&"),
        "{}",
        link.url
    );
    assert!(link.url.contains("X-Amz-Expires=3600&"), "{}", link.url);
    assert!(!link.url.contains("checksum"), "the sender can't know one: {}", link.url);
    assert!(blobs.upload_link("uploads/a", WEEK + HOUR, 3, "image/png").await.is_err(), "S3 takes a week at most");

    let absent = S3Blobs::new(&config, Addressing::Path, "tidegate-no-such-bucket");
    assert!(absent.get("live/a").await.is_err(), "a bucket that isn't there is no missing blob");
    assert!(absent.put("live/a", Bytes::new()).await.is_err());
}

/// Follows a link to the emulator, as a browser does.
async fn download(link: &str) -> Downloaded {
    let (head, content) = exchange("GET", link, &[], &[]).await;
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    match head.split(' ').nth(1) {
        Some("200") => {
            assert_eq!(header("content-type").as_deref(), Some("application/octet-stream"), "never shown as a page");
            Some((content, header("content-disposition").unwrap()))
        }
        Some("404") => None,
        _ => panic!("{head}"),
    }
}

/// Uploads to the emulator.
async fn upload(link: &UploadLink, body: Bytes) -> u16 {
    let (head, _) = exchange(link.method, &link.url, &link.headers, &body).await;
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What is answered: its head, and its content.
async fn exchange(method: &str, url: &str, headers: &[(String, String)], body: &[u8]) -> (String, Bytes) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap(), Bytes::copy_from_slice(&answer[end + 4..]))
}

#[tokio::test]
async fn a_link_to_a_folder_ends_and_is_what_was_signed() {
    let (folder, blobs, clock) = folder();
    assert!(blobs.link("files/a", HOUR, "a").await.is_err(), "nobody answers links");
    assert!(blobs.upload_link("files/a", HOUR, 1, "a/b").await.is_err(), "nobody answers links");
    let root = folder.path().join("blobs");
    let blobs = blobs.with_links(ADDRESS).unwrap();
    let link = blobs.link("files/a", HOUR, "a.csv").await.unwrap();
    let linked = Some(("files/a".to_owned(), "a.csv".to_owned()));
    assert_eq!(blobs.linked(token(&link)), linked);
    let upload = blobs.upload_link("uploads/a", HOUR, 1, "a/b").await.unwrap();
    assert_eq!(blobs.linked(token(&upload.url)), None, "an upload's is no download's");
    assert!(blobs.upload(token(&link)).is_none(), "nor the other way round");
    assert_eq!(fs::metadata(root.join("=links.key")).unwrap().permissions().mode() & 0o777, 0o600);

    let signed = token(&link);
    for (at, char) in signed.char_indices() {
        let other = if char == 'A' { 'B' } else { 'A' };
        let changed = format!("{}{other}{}", &signed[..at], &signed[at + 1..]);
        assert_eq!(blobs.linked(&changed), None, "{changed}");
        assert_eq!(blobs.linked(&signed[..at]), None, "{at}");
    }
    for made_up in ["", ".", "..", "a.b", &format!("{signed}."), &format!("{signed}A"), &format!(".{signed}")] {
        assert_eq!(blobs.linked(made_up), None, "{made_up}");
    }
    let (_elsewhere, others, _) = self::folder();
    let others = others.with_links(ADDRESS).unwrap();
    assert_eq!(others.linked(signed), None, "another installation's");

    let restarted = FolderBlobs::open(&root, clock.clone()).unwrap().with_links("http://127.0.0.1:1/files").unwrap();
    assert_eq!(restarted.linked(signed), linked, "links outlive a restart");
    clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(blobs.linked(signed), linked);
    clock.advance(Duration::from_secs(1));
    assert_eq!((blobs.linked(signed), restarted.linked(signed)), (None, None), "it is over");
    let endless = blobs.link("files/a", Duration::MAX, "a").await.unwrap();
    assert!(blobs.linked(token(&endless)).is_some());

    fs::write(root.join("=links.key"), b"short").unwrap();
    let reopened = FolderBlobs::open(&root, clock).unwrap();
    assert!(reopened.with_links(ADDRESS).is_err(), "a key that somebody cut isn't replaced silently");
}

#[tokio::test]
async fn a_folder_keeps_blobs_over_a_restart_and_drops_half_written_ones() {
    let (folder, blobs, clock) = folder();
    blobs.put("live/a", Bytes::from_static(b"kept")).await.unwrap();
    fs::write(folder.path().join("blobs/=new/7"), b"half").unwrap();
    let mut reading = blobs.open_blob("live/a").await.unwrap().unwrap();
    blobs.put("live/a", Bytes::from_static(b"newer")).await.unwrap();
    blobs.delete("live/a").await.unwrap();
    assert_eq!((reading.bytes, reading.next().await.unwrap().as_deref()), (4, Some(&b"kept"[..])), "as it was opened");
    assert_eq!(reading.next().await.unwrap(), None);
    assert!(blobs.open_blob("live/a").await.unwrap().is_none());
    blobs.put("live/a", Bytes::from_static(b"kept")).await.unwrap();
    drop(blobs);
    let blobs = FolderBlobs::open(&folder.path().join("blobs"), clock).unwrap();
    assert_eq!(blobs.get("live/a").await.unwrap(), Some(Bytes::from_static(b"kept")));
    assert_eq!(tree(&folder.path().join("blobs")), ["=new", "live", "live/a="]);
}

#[tokio::test]
async fn symbolic_links_are_not_followed() {
    let (folder, blobs, _) = folder();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret="), b"secret").unwrap();
    blobs.put("live/x/y", Bytes::new()).await.unwrap();
    let root = folder.path().join("blobs");
    std::os::unix::fs::symlink(&outside, root.join("live/linked")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret="), root.join("live/x/file=")).unwrap();

    for key in ["live/linked/secret", "live/x/file"] {
        assert!(blobs.get(key).await.is_err(), "{key}");
        assert!(blobs.size(key).await.is_err(), "{key}");
        assert!(blobs.delete(key).await.is_err(), "{key}");
        assert!(blobs.rename(key, "live/stolen").await.is_err(), "{key}");
        assert!(blobs.copy(key, "live/stolen").await.is_err(), "{key}");
    }
    assert!(blobs.put("live/linked/new", Bytes::new()).await.is_err());
    assert!(blobs.put("live/linked/deeper/new", Bytes::new()).await.is_err());
    assert!(blobs.rename("live/x/y", "live/linked/new").await.is_err());
    assert!(blobs.copy("live/x/y", "live/linked/new").await.is_err());
    // A link in a blob's own place is replaced, not written through.
    blobs.put("live/x/file", Bytes::from_static(b"mine")).await.unwrap();
    assert_eq!(fs::read(outside.join("secret=")).unwrap(), b"secret");
    assert_eq!(tree(&outside), ["secret="]);
}

#[tokio::test]
async fn the_sweep_takes_blobs_that_expire_and_are_old() {
    let (_folder, blobs, clock) = folder();
    let start = clock.now();
    assert_eq!(blobs.sweep_expired(start).await.unwrap(), 0, "an empty folder");
    for key in ["live/a/1", "live/a/2", "kept/a/3"] {
        blobs.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    clock.advance(Duration::from_secs(60));
    blobs.rename("live/a/2", "kept/a/2").await.unwrap();
    assert_eq!(blobs.sweep_expired(start).await.unwrap(), 0);
    assert_eq!(blobs.sweep_expired(start + Duration::from_secs(30)).await.unwrap(), 1);
    assert_eq!(blobs.get("kept/a/3").await.unwrap(), None);
    assert!(blobs.get("kept/a/2").await.unwrap().is_some(), "its age counts from the move");
    assert_eq!(blobs.sweep_expired(start + Duration::from_secs(90)).await.unwrap(), 1);
    assert_eq!(blobs.get("kept/a/2").await.unwrap(), None);
    assert!(blobs.get("live/a/1").await.unwrap().is_some(), "live blobs have no age");

    blobs.put("uploads/a/4", Bytes::from_static(b"x")).await.unwrap();
    clock.advance(Duration::from_secs(60));
    for to in ["files/a/4", "uploads/a/5"] {
        assert!(blobs.copy("uploads/a/4", to).await.unwrap());
    }
    assert_eq!(blobs.sweep_expired(start + Duration::from_secs(90)).await.unwrap(), 1);
    assert_eq!(blobs.get("uploads/a/4").await.unwrap(), None);
    for left in ["files/a/4", "uploads/a/5"] {
        assert!(blobs.get(left).await.unwrap().is_some(), "a copy has its own age: {left}");
    }
}

#[tokio::test]
async fn calls_at_once_on_one_folder_lose_nothing() {
    let (folder, blobs, _) = folder();
    let calls = (0..16).map(|worker| {
        let blobs = blobs.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                let (from, to) = (format!("live/t/r/{worker}"), format!("kept/t/r/{worker}"));
                let bytes = Bytes::from(format!("{worker} {round}"));
                blobs.put(&from, bytes.clone()).await.unwrap();
                blobs.rename(&from, &to).await.unwrap();
                assert_eq!(blobs.get(&to).await.unwrap(), Some(bytes));
                blobs.delete(&to).await.unwrap();
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(tree(&folder.path().join("blobs")), ["=new", "kept", "live"]);
}
