//! Uploads to a folder: what S3 does with a presigned `PUT`. The bytes go to the disk as they come.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{FolderBlobs, NEW, blocking};
use crate::PortError;
use crate::blobs::upload_headers;

/// What a link of [`Blobs::upload_link`](crate::Blobs::upload_link) says, beside its signature. Its members are others
/// than those of a download's link, so that neither is ever read as the other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allowed {
    pub(super) upload: String,
    pub(super) bytes: u64,
    pub(super) content_type: String,
    /// Unix seconds.
    pub(super) until: i64,
}

/// An upload that a link allows.
#[derive(Debug)]
pub struct Upload {
    blobs: FolderBlobs,
    key: String,
    bytes: u64,
    content_type: String,
}

/// Why an upload isn't stored.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is a blob under its key: on S3 that is 412.
    #[error("there is a file already; a link stores one")]
    Stored,
    /// Another upload of the same key has not ended: on S3 that is 409.
    #[error("another upload by this link has not ended")]
    Busy,
    /// It has more or fewer bytes than its link allows.
    #[error("the link is for exactly {expected} bytes")]
    Size {
        /// How many it must have.
        expected: u64,
    },
    /// The disk is at fault.
    #[error(transparent)]
    Failed(#[from] PortError),
}

/// An upload whose bytes are arriving. What has arrived goes when this is dropped, unless it was finished.
#[derive(Debug)]
pub struct Receiving {
    upload: Upload,
    file: Arc<File>,
    unnamed: PathBuf,
    left: u64,
    _under_way: UnderWay,
}

/// Keeps others from the key, for as long as it lasts: also where whoever waits for it gives up.
#[derive(Debug)]
struct UnderWay {
    blobs: FolderBlobs,
    key: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.blobs.uploading.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl FolderBlobs {
    /// What a link of [`Blobs::upload_link`](crate::Blobs::upload_link) allows, by what follows its address. `None` where
    /// the link was not made here, or is over.
    pub fn upload(&self, token: &str) -> Option<Upload> {
        let Allowed { upload, bytes, content_type, until } = self.signed(token)?;
        let is_open = self.clock.now().as_second() < until;
        is_open.then(|| Upload { blobs: self.clone(), key: upload, bytes, content_type })
    }
}

impl Upload {
    /// The headers that the request must have just so, by their names in lower case.
    pub fn headers(&self) -> [(&'static str, String); 3] {
        upload_headers(self.bytes, &self.content_type)
    }

    /// Makes room for the bytes.
    ///
    /// # Errors
    /// A blob is there, or on its way.
    pub async fn begin(self) -> Result<Receiving, UploadError> {
        if !self.blobs.uploading.lock().unwrap_or_else(PoisonError::into_inner).insert(self.key.clone()) {
            return Err(UploadError::Busy);
        }
        let under_way = UnderWay { blobs: self.blobs.clone(), key: self.key.clone() };
        let number = self.blobs.unnamed.fetch_add(1, Ordering::Relaxed);
        let unnamed = self.blobs.root.join(NEW).join(number.to_string());
        let (blobs, key, path) = (self.blobs.clone(), self.key.clone(), unnamed.clone());
        let begun = blocking("begin an upload", move || match blobs.existing(&key) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                OpenOptions::new().write(true).create_new(true).open(path).map(Some)
            }
            found => found.map(|_| None),
        });
        match begun.await? {
            Some(file) => {
                Ok(Receiving { file: Arc::new(file), unnamed, left: self.bytes, upload: self, _under_way: under_way })
            }
            None => Err(UploadError::Stored),
        }
    }

    fn wrong_size(&self) -> UploadError {
        UploadError::Size { expected: self.bytes }
    }
}

impl Receiving {
    /// Writes what comes next.
    ///
    /// # Errors
    /// These are more bytes than the link allows, or the disk takes no more.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), UploadError> {
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(length).ok_or_else(|| self.upload.wrong_size())?;
        let file = self.file.clone();
        Ok(blocking("receive an upload", move || (&*file).write_all(&chunk)).await?)
    }

    /// Stores the blob, for good.
    ///
    /// # Errors
    /// There are fewer bytes than the link says, or meanwhile a blob is there.
    pub async fn finish(self) -> Result<(), UploadError> {
        if self.left > 0 {
            return Err(self.upload.wrong_size());
        }
        let (blobs, key) = (self.upload.blobs.clone(), self.upload.key.clone());
        let (file, unnamed) = (self.file.clone(), self.unnamed.clone());
        let stored = blocking("store an upload", move || {
            file.set_modified(blobs.clock.now().into())?;
            file.sync_all()?;
            match blobs.place_by(&key, |path| fs::hard_link(&unnamed, path)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                placed => placed.map(|()| true),
            }
        });
        if stored.await? { Ok(()) } else { Err(UploadError::Stored) }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // What can't be removed goes at the next start.
        drop(fs::remove_file(&self.unnamed));
    }
}
