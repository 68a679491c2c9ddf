//! Blobs as files under one folder.
//!
//! The blob `a/b` is the file `a/b=`: since no key holds `=`, the blob `a/b` and the folder of the blob `a/b/c` don't
//! meet. Bytes are written and fsynced under a name of their own in `=new`, then renamed: a reader sees all or nothing.

pub mod upload;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Blobs, KEPT, TooLarge, UPLOADS, UploadLink, check_content_type, check_key, upload_headers};
use crate::{Clock, PortError};

use upload::Allowed;

/// Blobs in a folder. Symbolic links below it are refused, not followed. The file system should tell upper from lower
/// case where keys differ in that alone.
#[derive(Debug, Clone)]
pub struct FolderBlobs {
    root: Arc<Path>,
    clock: Clock,
    folders: Arc<RwLock<()>>,
    unnamed: Arc<AtomicU64>,
    /// The keys of uploads that have not ended.
    uploading: Arc<Mutex<HashSet<String>>>,
    links: Option<Arc<Links>>,
}

/// What links are made with.
struct Links {
    address: String,
    key: hmac::Key,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What a link says, beside its signature.
#[derive(Serialize, Deserialize)]
struct Link {
    key: String,
    filename: String,
    /// Unix seconds.
    until: i64,
}

/// A blob that is read piece by piece: all of it as it was when it was opened, whatever becomes of its key.
#[derive(Debug)]
pub struct Reading {
    /// How many bytes it has.
    pub bytes: u64,
    file: Arc<File>,
}

impl Reading {
    const PIECE_BYTES: usize = 64 * 1024;

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The disk can't be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PortError> {
        let file = self.file.clone();
        let piece = blocking("read blob", move || {
            let mut piece = vec![0; Self::PIECE_BYTES];
            let length = (&*file).read(&mut piece)?;
            piece.truncate(length);
            Ok(piece)
        });
        Ok(Some(piece.await?).filter(|piece| !piece.is_empty()).map(Bytes::from))
    }
}

impl FolderBlobs {
    /// Opens the folder, making it (for its owner alone) where needed, and drops what an interrupted `put` left. The folder must belong to
    /// this process alone. Blocks on the disk.
    ///
    /// # Errors
    /// The folder can't be made or read.
    pub fn open(root: &Path, clock: Clock) -> Result<Self, PortError> {
        let open = || -> io::Result<PathBuf> {
            DirBuilder::new().recursive(true).mode(0o700).create(root)?;
            let root = root.canonicalize()?;
            match fs::remove_dir_all(root.join(NEW)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
            fs::create_dir(root.join(NEW))?;
            sync(&root)?;
            Ok(root)
        };
        let root = open().map_err(|error| PortError::new(format!("open the blob folder {}", root.display()), error))?;
        let (folders, unnamed, uploading) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { root: root.into(), clock, folders, unnamed, uploading, links: None })
    }

    /// Removes blobs of the lifetimes [`KEPT`] and [`UPLOADS`] that were stored or moved there before a time: what
    /// lifecycle rules do on S3. Returns how many.
    ///
    /// # Errors
    /// The folder can't be read or a blob can't be removed.
    pub async fn sweep_expired(&self, before: Timestamp) -> Result<usize, PortError> {
        let blobs = self.clone();
        blocking("sweep blobs", move || {
            [KEPT, UPLOADS].iter().map(|lifetime| blobs.sweep(&blobs.root.join(lifetime), before.into())).sum()
        })
        .await
    }

    /// The same, with links that begin with an address under which somebody answers them by [`FolderBlobs::linked`]. The key
    /// that signs them is made once and kept in the folder. Blocks on the disk.
    ///
    /// # Errors
    /// The key can't be read or made.
    pub fn with_links(mut self, address: impl Into<String>) -> Result<Self, PortError> {
        let opened = self.link_key().map_err(|error| PortError::new("open the key of links", error))?;
        self.links = Some(Arc::new(Links { address: address.into(), key: hmac::Key::new(hmac::HMAC_SHA256, &opened) }));
        Ok(self)
    }

    fn link_key(&self) -> io::Result<Vec<u8>> {
        let path = self.root.join(LINK_KEY);
        match fs::read(&path) {
            Ok(key) if key.len() == 32 => return Ok(key),
            Ok(_) => return Err(io::Error::new(ErrorKind::InvalidData, "the key has not 32 bytes")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut key = vec![0; 32];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let unnamed = self.root.join(NEW).join(self.unnamed.fetch_add(1, Ordering::Relaxed).to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unnamed)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&unnamed, &path)?;
        sync(&self.root)?;
        Ok(key)
    }

    /// What a link of [`Blobs::link`] is for, by what follows its address: the blob's key and the attachment's name. `None`
    /// where the link was not made here, or is over.
    pub fn linked(&self, token: &str) -> Option<(String, String)> {
        let link: Link = self.signed(token)?;
        (self.clock.now().as_second() < link.until).then_some((link.key, link.filename))
    }

    /// What was signed here and is what is asked for.
    fn signed<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let (payload, signature) = token.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.links.as_ref()?.key, payload.as_bytes(), &signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    /// A link that says what is given, signed.
    fn sign(&self, operation: &str, payload: &impl Serialize) -> Result<String, PortError> {
        let links = self.links.as_ref();
        let links = links.ok_or_else(|| PortError::new(operation, "nothing answers links to this folder"))?;
        let payload = serde_json::to_vec(payload).map_err(|error| PortError::new(operation, error))?;
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&links.key, payload.as_bytes()));
        Ok(format!("{}/{payload}.{signature}", links.address))
    }

    /// In Unix seconds.
    fn until(&self, expires_in: Duration) -> i64 {
        let seconds = i64::try_from(expires_in.as_secs()).unwrap_or(i64::MAX);
        self.clock.now().as_second().saturating_add(seconds)
    }

    /// A blob to read piece by piece, or `None` where there is none.
    ///
    /// # Errors
    /// The folder can't be read.
    pub async fn open_blob(&self, key: &str) -> Result<Option<Reading>, PortError> {
        check_key("open", key)?;
        let (blobs, key) = (self.clone(), key.to_owned());
        let opened = blocking("open blob", move || match blobs.existing(&key).and_then(File::open) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.and_then(|file| Ok(Some((file.metadata()?.len(), file)))),
        });
        Ok(opened.await?.map(|(bytes, file)| Reading { bytes, file: Arc::new(file) }))
    }

    fn size_of_file(&self, key: &str) -> io::Result<Option<u64>> {
        match self.existing(key).and_then(fs::metadata) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => found.map(|metadata| Some(metadata.len())),
        }
    }

    fn put_file(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        self.store(key, |file| file.write_all(bytes))
    }

    /// The kernel copies, where it can by sharing the blocks. A second name for the same file would share its age too.
    fn copy_file(&self, from: &str, to: &str) -> io::Result<bool> {
        let mut source = match self.existing(from).and_then(File::open) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        self.store(to, |file| io::copy(&mut source, file).map(drop)).map(|()| true)
    }

    /// Stores what is written to a file that has no name yet.
    fn store(&self, key: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let unnamed = self.root.join(NEW).join(self.unnamed.fetch_add(1, Ordering::Relaxed).to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).open(&unnamed)?;
        let stored = write(&mut file)
            .and_then(|()| file.set_modified(self.clock.now().into()))
            .and_then(|()| file.sync_all())
            .and_then(|()| self.place(&unnamed, key));
        if stored.is_err() {
            // The first error matters; what is left here goes at the next start.
            drop(fs::remove_file(&unnamed));
        }
        stored
    }

    fn get_file(&self, key: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let mut file = match self.existing(key).and_then(File::open) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        // A blob never changes once it has its name.
        let bytes = file.metadata()?.len();
        if bytes > max_bytes {
            return Err(io::Error::new(ErrorKind::FileTooLarge, TooLarge { bytes, max_bytes }));
        }
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        file.read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        match self.move_file(from, to) {
            // Moved already, or never there.
            Err(error) if error.kind() == ErrorKind::NotFound => self.existing(to).map(drop),
            moved => moved,
        }
    }

    fn move_file(&self, from: &str, to: &str) -> io::Result<()> {
        let source = self.existing(from)?;
        if from == to {
            return Ok(());
        }
        File::open(&source)?.set_modified(self.clock.now().into())?;
        self.place(&source, to)?;
        self.left(&source)
    }

    fn delete_file(&self, key: &str) -> io::Result<()> {
        let path = match self.existing(key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        self.remove(&path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        self.left(path)
    }

    /// Makes it durable that a blob is gone from a place, and removes the folders that it leaves empty.
    fn left(&self, path: &Path) -> io::Result<()> {
        let _exclusive = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        for folder in path.ancestors().skip(1) {
            if folder == &*self.root || folder.parent() == Some(&self.root) {
                return sync(folder);
            }
            match fs::remove_dir(folder) {
                // Another blob that left it removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return sync(folder),
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Moves a file to the key's place, for good.
    fn place(&self, file: &Path, key: &str) -> io::Result<()> {
        self.place_by(key, |path| fs::rename(file, path))
    }

    /// Puts a file in the key's place, for good. Folders come and go only under the exclusive lock: one that is found
    /// under the shared lock is durable and stays.
    fn place_by(&self, key: &str, put: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let put = |path: PathBuf| put(&path).and_then(|()| sync_parent(&path));
        let shared = self.folders.read().unwrap_or_else(PoisonError::into_inner);
        match self.checked(key) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            checked => return put(checked?),
        }
        drop(shared);
        let _exclusive = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        self.make_folders(key).and_then(put)
    }

    fn make_folders(&self, key: &str) -> io::Result<PathBuf> {
        let mut path = self.root.to_path_buf();
        let (folders, name) = split(key);
        for folder in folders {
            let parent = path.clone();
            path.push(folder);
            match refuse_link(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir(&path)?;
                    sync(&parent)?;
                }
                checked => checked?,
            }
        }
        path.push(name);
        Ok(path)
    }

    /// The place of a blob in folders that exist.
    fn checked(&self, key: &str) -> io::Result<PathBuf> {
        let mut path = self.root.to_path_buf();
        let (folders, name) = split(key);
        for folder in folders {
            path.push(folder);
            refuse_link(&path)?;
        }
        path.push(name);
        Ok(path)
    }

    /// The path of a blob that exists.
    fn existing(&self, key: &str) -> io::Result<PathBuf> {
        let path = self.checked(key)?;
        refuse_link(&path)?;
        Ok(path)
    }

    fn sweep(&self, folder: &Path, before: SystemTime) -> io::Result<usize> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                removed += self.sweep(&entry.path(), before)?;
            } else if metadata.modified()? < before {
                self.remove(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Where files are written before they have their names; no key begins so.
const NEW: &str = "=new";
/// Where the key lies that signs links.
const LINK_KEY: &str = "=links.key";

#[async_trait]
impl Blobs for FolderBlobs {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), PortError> {
        check_key("put", key)?;
        let (blobs, key) = (self.clone(), key.to_owned());
        blocking("put blob", move || blobs.put_file(&key, &bytes)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, PortError> {
        self.get_up_to(key, u64::MAX).await
    }

    async fn get_up_to(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, PortError> {
        check_key("get", key)?;
        let (blobs, key) = (self.clone(), key.to_owned());
        Ok(blocking("get blob", move || blobs.get_file(&key, max_bytes)).await?.map(Bytes::from))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, PortError> {
        check_key("look at", key)?;
        let (blobs, key) = (self.clone(), key.to_owned());
        blocking("look at blob", move || blobs.size_of_file(&key)).await
    }

    async fn link(&self, key: &str, expires_in: Duration, filename: &str) -> Result<String, PortError> {
        check_key("link to", key)?;
        let link = Link { key: key.to_owned(), filename: filename.to_owned(), until: self.until(expires_in) };
        self.sign("link to blob", &link)
    }

    async fn upload_link(
        &self,
        key: &str,
        expires_in: Duration,
        bytes: u64,
        content_type: &str,
    ) -> Result<UploadLink, PortError> {
        check_key("link for", key)?;
        check_content_type(content_type)?;
        let (upload, until) = (key.to_owned(), self.until(expires_in));
        let allowed = Allowed { upload, bytes, content_type: content_type.to_owned(), until };
        let url = self.sign("link for an upload", &allowed)?;
        let headers = upload_headers(bytes, content_type).map(|(name, value)| (name.to_owned(), value));
        Ok(UploadLink { method: "PUT", url, headers: headers.into() })
    }

    async fn copy(&self, from: &str, to: &str) -> Result<bool, PortError> {
        check_key("copy", from)?;
        check_key("copy", to)?;
        let (blobs, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        blocking("copy blob", move || blobs.copy_file(&from, &to)).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), PortError> {
        check_key("rename", from)?;
        check_key("rename", to)?;
        let (blobs, from, to) = (self.clone(), from.to_owned(), to.to_owned());
        blocking("rename blob", move || blobs.rename_file(&from, &to)).await
    }

    async fn delete(&self, key: &str) -> Result<(), PortError> {
        check_key("delete", key)?;
        let (blobs, key) = (self.clone(), key.to_owned());
        blocking("delete blob", move || blobs.delete_file(&key)).await
    }
}

async fn blocking<T: Send + 'static>(
    operation: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, PortError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| PortError::new(operation, error)),
        Err(panicked) => Err(PortError::new(operation, panicked)),
    }
}

fn split(key: &str) -> (impl Iterator<Item = &str>, String) {
    let (folders, name) = key.rsplit_once('/').unwrap_or(("", key));
    (folders.split('/').filter(|folder| !folder.is_empty()), format!("{name}="))
}

fn refuse_link(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_symlink() {
        let text = format!("{} is a symbolic link; blobs don't follow them", path.display());
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(())
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}
