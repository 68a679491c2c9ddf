//! The archive that a deployment uploads.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// `sam deploy` makes its archives with Python's `zipfile` too, so this is the size that it uploads.
const PROGRAM: &str = "
import io, sys, zipfile
archive = io.BytesIO()
with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as writer:
    writer.write(sys.argv[1], 'bootstrap')
print(archive.getbuffer().nbytes)
";

/// How many bytes the archive of a bootstrap alone has.
pub(crate) fn zipped_bytes(bootstrap: &Path) -> anyhow::Result<u64> {
    let output = Command::new("python3").arg("-c").arg(PROGRAM).arg(bootstrap).output().context("run python3")?;
    ensure!(output.status.success(), "python3 can't zip it: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("read the archive's size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_deflated_and_has_its_directory() {
        let folder = tempfile::tempdir().unwrap();
        let zipped = |bytes: &[u8]| {
            let file = folder.path().join("bootstrap");
            std::fs::write(&file, bytes).unwrap();
            zipped_bytes(&file).unwrap()
        };
        // A zip file of one entry: local header 30, central directory 46, its end 22 bytes, and twice the name (APPNOTE
        // 4.3). An empty file deflates to two bytes.
        assert_eq!(zipped(b""), 30 + 46 + 22 + 2 * 9 + 2);
        assert!(zipped(&[7; 1_000_000]) < 2_000);
        assert!(zipped_bytes(&folder.path().join("none")).is_err());
    }
}
