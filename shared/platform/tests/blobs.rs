//! The contract of blobs, for the folder and for S3 (on the emulator).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tidegate_platform::blobs::attachment;
use tidegate_platform::blobs::folder::FolderBlobs;
use tidegate_platform::blobs::s3::{Addressing, S3Blobs};
use tidegate_platform::{Blobs, Clock, Ids};
use tidegate_testing::emulator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a link brings: the content and the value of `Content-Disposition`.
type Downloaded = Option<(Bytes, String)>;

/// `follow`: what somebody downloads who has a link.
async fn contract(blobs: &dyn Blobs, follow: impl AsyncFn(&str) -> Downloaded) {
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
    links(blobs, &follow).await;

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
        assert!(blobs.size(key).await.is_err(), "{key:?}");
        assert!(blobs.link(key, HOUR, "x").await.is_err(), "{key:?}");
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
    contract(&blobs, async |link| {
        let (key, filename) = blobs.linked(token(link)).unwrap();
        let bytes = blobs.get(&key).await.unwrap()?;
        Some((bytes, attachment(&filename)))
    })
    .await;
    let left = ["=links.key", "=new", "files", "kept", "live"];
    assert_eq!(tree(&folder.path().join("blobs")), left, "nothing is left behind");
    assert_eq!(fs::metadata(folder.path().join("blobs")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn in_s3() {
    let config = emulator::sdk_config();
    let bucket = Ids::new(Clock::system()).workflow().to_string().replace('_', "-");
    let admin = aws_sdk_s3::Config::from(&config).to_builder().force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(admin).create_bucket().bucket(&bucket).send().await.unwrap();
    contract(&S3Blobs::new(&config, Addressing::Path, &bucket), download).await;

    let absent = S3Blobs::new(&config, Addressing::Path, "tidegate-no-such-bucket");
    assert!(absent.get("live/a").await.is_err(), "a bucket that isn't there is no missing blob");
    assert!(absent.put("live/a", Bytes::new()).await.is_err());
}

/// Follows a link to the emulator, as a browser does.
async fn download(link: &str) -> Downloaded {
    let (host, path) = link.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    match head.split(' ').nth(1) {
        Some("200") => {
            assert_eq!(header("content-type").as_deref(), Some("application/octet-stream"), "never shown as a page");
            Some((Bytes::copy_from_slice(&answer[end + 4..]), header("content-disposition").unwrap()))
        }
        Some("404") => None,
        _ => panic!("{head}"),
    }
}

#[tokio::test]
async fn a_link_to_a_folder_ends_and_is_what_was_signed() {
    let (folder, blobs, clock) = folder();
    assert!(blobs.link("files/a", HOUR, "a").await.is_err(), "nobody answers links");
    let root = folder.path().join("blobs");
    let blobs = blobs.with_links(ADDRESS).unwrap();
    let link = blobs.link("files/a", HOUR, "a.csv").await.unwrap();
    let linked = Some(("files/a".to_owned(), "a.csv".to_owned()));
    assert_eq!(blobs.linked(token(&link)), linked);
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
    }
    assert!(blobs.put("live/linked/new", Bytes::new()).await.is_err());
    assert!(blobs.put("live/linked/deeper/new", Bytes::new()).await.is_err());
    assert!(blobs.rename("live/x/y", "live/linked/new").await.is_err());
    // A link in a blob's own place is replaced, not written through.
    blobs.put("live/x/file", Bytes::from_static(b"mine")).await.unwrap();
    assert_eq!(fs::read(outside.join("secret=")).unwrap(), b"secret");
    assert_eq!(tree(&outside), ["secret="]);
}

#[tokio::test]
async fn the_sweep_takes_kept_blobs_that_are_old() {
    let (_folder, blobs, clock) = folder();
    let start = clock.now();
    assert_eq!(blobs.sweep_kept(start).await.unwrap(), 0, "an empty folder");
    for key in ["live/a/1", "live/a/2", "kept/a/3"] {
        blobs.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    clock.advance(Duration::from_secs(60));
    blobs.rename("live/a/2", "kept/a/2").await.unwrap();
    assert_eq!(blobs.sweep_kept(start).await.unwrap(), 0);
    assert_eq!(blobs.sweep_kept(start + Duration::from_secs(30)).await.unwrap(), 1);
    assert_eq!(blobs.get("kept/a/3").await.unwrap(), None);
    assert!(blobs.get("kept/a/2").await.unwrap().is_some(), "its age counts from the move");
    assert_eq!(blobs.sweep_kept(start + Duration::from_secs(90)).await.unwrap(), 1);
    assert_eq!(blobs.get("kept/a/2").await.unwrap(), None);
    assert!(blobs.get("live/a/1").await.unwrap().is_some(), "live blobs have no age");
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
