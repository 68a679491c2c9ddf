//! A key service for one machine: a master key of 32 random bytes in a file that only its owner may read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::cipher::{Cipher, canonical};
use super::{KeyContext, KeyService, PlainKey, UnwrapError};
use crate::PortError;

/// Wraps data keys with AES-256-GCM under the master key; the context is the associated data.
pub struct KeyFile {
    path: PathBuf,
    master: Cipher,
}

/// The key file can't be used. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Reading or making the file failed.
    #[error("can't {operation} the key file {}", path.display())]
    Io {
        /// `read`, `make`.
        operation: &'static str,
        /// The key file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "the key file {} has mode {mode:04o}, so others may read or change the key: `chmod 600 {}`, and if somebody \
         may have read it, replace every stored credential",
        path.display(), path.display()
    )]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a file of 32 bytes.
    #[error(
        "the key file {} is not a regular file of 32 bytes: restore it from a backup (without the right key no stored \
         credential can be read), or start on another data folder",
        path.display()
    )]
    NotAKey {
        /// The key file.
        path: PathBuf,
    },
}

impl KeyFile {
    /// Opens the key file, or makes it with a new key where there is none; its folder must exist. Of processes that
    /// make it at once, all get the same key. Blocks on the disk.
    ///
    /// # Errors
    /// The file is wider open than 0600, is not 32 bytes long, or can't be read or made.
    pub fn open_or_create(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |operation| move |source| KeyFileError::Io { operation, path: path.to_owned(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(failed("make"))?;
                File::open(path).map_err(failed("read"))?
            }
            opened => opened.map_err(failed("read"))?,
        };
        let metadata = file.metadata().map_err(failed("read"))?;
        if !metadata.is_file() || metadata.len() != 32 {
            return Err(KeyFileError::NotAKey { path: path.to_owned() });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
        }
        let mut key = PlainKey::default();
        (&file).read_exact(key.as_mut_slice()).map_err(failed("read"))?;
        Ok(Self { path: path.to_owned(), master: Cipher::new(&key) })
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyService for KeyFile {
    async fn generate_data_key(&self, context: &KeyContext) -> Result<(PlainKey, Vec<u8>), PortError> {
        let mut key = PlainKey::default();
        getrandom::fill(key.as_mut_slice()).map_err(|error| PortError::new("make a data key", error))?;
        let wrapped = self.master.seal(&associated(context), key.as_slice());
        Ok((key, wrapped))
    }

    async fn unwrap_data_key(&self, wrapped: &[u8], context: &KeyContext) -> Result<PlainKey, UnwrapError> {
        let opened = self.master.open(&associated(context), wrapped).map_err(|_| UnwrapError::refused(context))?;
        let key = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| UnwrapError::refused(context))?;
        Ok(Zeroizing::new(key))
    }
}

fn associated(context: &KeyContext) -> Vec<u8> {
    canonical("tidegate data key", &[context.tenant.as_bytes(), context.purpose.as_bytes()])
}

/// Makes the file durable before it has its name, so that no reader sees half a key and a crash leaves none.
fn create(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut key = Zeroizing::new([0_u8; 40]);
    getrandom::fill(key.as_mut_slice()).map_err(io::Error::other)?;
    let (key, suffix) = key.split_at(32);
    let suffix: String = suffix.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{suffix}"));
    let unnamed = folder.join(name);

    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed)?;
    let made = file.write_all(key).and_then(|()| file.sync_all()).and_then(|()| {
        // A link, unlike a rename, never replaces a key that another process made meanwhile.
        match fs::hard_link(&unnamed, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    let removed = fs::remove_file(&unnamed);
    made.and(removed)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_private_whole_and_alone_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        KeyFile::open_or_create(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.len()), (0o600, 32));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let first = fs::read(&path).unwrap();
        KeyFile::open_or_create(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "a second start keeps the key");
    }

    #[test]
    fn all_who_make_it_at_once_get_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let keys: Vec<KeyFile> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| KeyFile::open_or_create(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sealed = keys[0].master.seal(b"", b"same");
        assert!(keys.iter().all(|key| key.master.open(b"", &sealed).is_ok()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_wider_mode_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        KeyFile::open_or_create(&path).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = KeyFile::open_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Permissions { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains(&format!("`chmod 600 {}`", path.display())), "{error}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            KeyFile::open_or_create(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 31, 33, 4096] {
            let path = folder.path().join(format!("{len}.key"));
            fs::write(&path, vec![1; len]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = KeyFile::open_or_create(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::NotAKey { .. }), "{len}: {error}");
            assert_eq!(fs::metadata(&path).unwrap().len(), len as u64);
        }
        let error = KeyFile::open_or_create(folder.path()).unwrap_err();
        assert!(matches!(error, KeyFileError::NotAKey { .. }), "a folder: {error}");
        let error = KeyFile::open_or_create(&folder.path().join("absent/master.key")).unwrap_err();
        assert!(error.to_string().starts_with("can't make the key file"), "{error}");
    }

    #[test]
    fn debug_shows_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let keys = KeyFile::open_or_create(&path).unwrap();
        assert_eq!(format!("{keys:?}"), format!("KeyFile {{ path: {path:?}, .. }}"));
    }
}
