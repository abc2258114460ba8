//! Fetches into the cache what it lacks.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::{
        Progress,
        sync::{Api, ApiBuilder, ApiError},
    },
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{HubError, HubSettings, ModelId, cache, choice, id::is_commit};

/// How often somebody who waits is told how far a file has come.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// How often a transfer is begun or taken up before it is given up.
const ATTEMPTS: u32 = 4;
/// The pause before a transfer is taken up again, which grows with each.
const PAUSE: Duration = Duration::from_secs(1);

/// What the Hub says of a model at one revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

/// One of its files.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    /// The name of the file among git's objects, which is that of a small file's blob in the cache.
    #[serde(default)]
    blob_id: Option<String>,
    #[serde(default)]
    lfs: Option<LargeFile>,
}

/// What is known of a file that git keeps elsewhere.
#[derive(Deserialize)]
struct LargeFile {
    /// Its digest, which is the name of its blob in the cache.
    sha256: String,
}

impl Sibling {
    /// The name of its blob in the cache, if the Hub tells; nothing that would lead elsewhere.
    fn blob(&self) -> Option<&str> {
        let name = self.lfs.as_ref().map(|large| large.sha256.as_str()).or(self.blob_id.as_deref())?;
        name.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(name)
    }
}

/// Gets the files of a model that aren't there yet, and gives their folder and the commit.
pub(crate) fn fetch(settings: &HubSettings, id: &ModelId) -> Result<(PathBuf, String), HubError> {
    let transfer = Transfer::new(settings, id)?;
    let listing = transfer.listing()?;
    if !is_commit(&listing.sha) {
        return Err(transfer.status(502));
    }
    let names = listing.siblings.iter().map(|sibling| sibling.rfilename.as_str());
    let needed = choice::needed(names).ok_or_else(|| HubError::NoCheckpoint { id: id.clone() })?;
    let folder = cache::snapshot(&settings.cache, id, &listing.sha);
    if !cache::is_complete(&settings.cache, id, &listing.sha) {
        let needed = listing.siblings.iter().filter(|sibling| needed.contains(&sibling.rfilename.as_str()));
        let missing: Vec<&Sibling> = needed.filter(|sibling| !transfer.is_there(sibling, &folder)).collect();
        transfer.check_space(&missing)?;
        for sibling in missing {
            transfer.file(&listing.sha, sibling, &folder)?;
        }
        cache::set_complete(&settings.cache, id, &listing.sha)
            .map_err(|source| HubError::File { path: folder.clone(), source })?;
    }
    if id.commit().is_none() {
        let repository = Repo::with_revision(id.repository().to_owned(), RepoType::Model, id.revision().to_owned());
        let kept = Cache::new(settings.cache.clone()).repo(repository).create_ref(&listing.sha);
        kept.map_err(|source| HubError::File { path: settings.cache.join(id.folder()).join("refs"), source })?;
    }
    Ok((folder, listing.sha))
}

/// One model that is being fetched.
struct Transfer<'a> {
    settings: &'a HubSettings,
    id: &'a ModelId,
    api: Api,
}

impl<'a> Transfer<'a> {
    fn new(settings: &'a HubSettings, id: &'a ModelId) -> Result<Self, HubError> {
        let builder = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            .with_user_agent("karat", env!("CARGO_PKG_VERSION"));
        let api = builder.build().map_err(|error| HubError::Unreachable {
            id: id.clone(),
            cache: settings.cache.clone(),
            endpoint: settings.endpoint.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self { settings, id, api })
    }

    /// The model's folder in the cache.
    fn model(&self) -> PathBuf {
        self.settings.cache.join(self.id.folder())
    }

    fn listing(&self) -> Result<Listing, HubError> {
        let repository =
            Repo::with_revision(self.id.repository().to_owned(), RepoType::Model, self.id.revision().to_owned());
        let request = self.api.repo(repository).info_request().query("blobs", "true");
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        response.body_mut().read_json().map_err(|error| self.unreachable(&error))
    }

    /// Whether a file is there and is what the Hub says; one that was damaged before it was looked at is removed.
    fn is_there(&self, sibling: &Sibling, folder: &Path) -> bool {
        let path = folder.join(&sibling.rfilename);
        let Some(LargeFile { sha256 }) = sibling.lfs.as_ref().filter(|_| path.is_file()) else { return path.is_file() };
        let same = digest(&path).is_ok_and(|found| found == *sha256);
        if !same {
            // The link and what it leads to.
            let _ = fs::canonicalize(&path).map(fs::remove_file);
            let _ = fs::remove_file(&path);
        }
        same
    }

    /// Refuses what wouldn't fit, before the first byte is fetched.
    fn check_space(&self, missing: &[&Sibling]) -> Result<(), HubError> {
        let left = |sibling: &&Sibling| {
            let begun = sibling.blob().map_or(0, |blob| length(&self.part(blob)).max(length(&self.blob(blob))));
            sibling.size.unwrap_or(0).saturating_sub(begun)
        };
        let needed: u64 = missing.iter().map(left).sum();
        let blobs = self.model().join("blobs");
        fs::create_dir_all(&blobs).map_err(|source| HubError::File { path: blobs.clone(), source })?;
        match free(&blobs) {
            Some(free) if free < needed => {
                Err(HubError::Space { id: self.id.clone(), needed, free, cache: self.settings.cache.clone() })
            }
            _ => Ok(()),
        }
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.model().join("blobs").join(name)
    }

    /// What came of a file before its transfer broke off.
    fn part(&self, blob: &str) -> PathBuf {
        self.blob(blob).with_extension("part")
    }

    /// Gets one file, from where an earlier transfer broke off, and holds it against what the Hub says of it.
    fn file(&self, commit: &str, sibling: &Sibling, folder: &Path) -> Result<(), HubError> {
        let Sibling { rfilename: name, size, lfs, .. } = sibling;
        if let Some(blob) = sibling.blob() {
            // Another commit may have the same file.
            let at_top = !name.contains('/');
            let is_held =
                lfs.as_ref().is_none_or(|large| digest(&self.blob(blob)).is_ok_and(|found| found == large.sha256));
            if !is_held {
                let _ = fs::remove_file(self.blob(blob));
            }
            if at_top
                && size.is_some_and(|size| length(&self.blob(blob)) == size)
                && is_held
                && link(blob, folder, name).is_ok()
            {
                return Ok(());
            }
            // What is as long as the whole and isn't renamed can't be taken up.
            if size.is_some_and(|size| length(&self.part(blob)) >= size) {
                let _ = fs::remove_file(self.part(blob));
            }
        }
        let path = self.download(commit, name)?;
        // The library notes a commit as a branch of its own name, which Python doesn't.
        let _ = fs::remove_file(self.model().join("refs").join(commit));
        let damaged = |reason: String| {
            // The link and what it leads to.
            let _ = fs::canonicalize(&path).map(fs::remove_file);
            let _ = fs::remove_file(&path);
            HubError::Damaged { id: self.id.clone(), file: name.clone(), reason }
        };
        let found = length(&path);
        if let Some(size) = size.filter(|size| *size != found) {
            return Err(damaged(format!("{found} bytes of {size}")));
        }
        if let Some(LargeFile { sha256 }) = lfs {
            let found = digest(&path).map_err(|source| HubError::File { path: path.clone(), source })?;
            if found != *sha256 {
                return Err(damaged("its digest is another".to_owned()));
            }
        }
        Ok(())
    }

    fn download(&self, commit: &str, name: &str) -> Result<PathBuf, HubError> {
        let repository = Repo::with_revision(self.id.repository().to_owned(), RepoType::Model, commit.to_owned());
        let repository = self.api.repo(repository);
        let mut attempt = 1;
        loop {
            let failed = match repository.download_with_progress(name, Telling::new(self.id, name)) {
                Ok(path) => return Ok(path),
                Err(error) => self.broke_off(name, error),
            };
            if attempt == ATTEMPTS || !matches!(failed, HubError::BrokeOff { .. }) {
                return Err(failed);
            }
            tracing::warn!(model = %self.id, error = %failed, "taking it up again");
            thread::sleep(PAUSE * attempt);
            attempt += 1;
        }
    }

    fn status(&self, status: u16) -> HubError {
        let (id, endpoint) = (self.id.clone(), self.settings.endpoint.clone());
        match status {
            401 | 403 => HubError::Denied { id, endpoint, status, token: self.settings.token.is_some() },
            404 => HubError::Missing { id, endpoint },
            _ => HubError::Status { id, endpoint, status },
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> HubError {
        match error {
            ureq::Error::StatusCode(status) => self.status(*status),
            other => HubError::Unreachable {
                id: self.id.clone(),
                cache: self.settings.cache.clone(),
                endpoint: self.settings.endpoint.clone(),
                reason: other.to_string(),
            },
        }
    }

    fn broke_off(&self, file: &str, error: ApiError) -> HubError {
        match error {
            ApiError::RequestError(error) if matches!(*error, ureq::Error::StatusCode(_)) => self.unreachable(&error),
            other => HubError::BrokeOff { id: self.id.clone(), file: file.to_owned(), reason: other.to_string() },
        }
    }
}

/// The length of a file; 0 of one that isn't there.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Puts a blob that is there under a file's name.
#[cfg(unix)]
fn link(blob: &str, folder: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    std::os::unix::fs::symlink(Path::new("../../blobs").join(blob), folder.join(name))
}

#[cfg(not(unix))]
fn link(_blob: &str, _folder: &Path, _name: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How many bytes a folder's disk has left, where that can be told.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn free(_folder: &Path) -> Option<u64> {
    None
}

/// The SHA-256 digest of a file in hexadecimal digits.
fn digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Tells in the log how far a file has come.
struct Telling<'a> {
    model: &'a ModelId,
    file: &'a str,
    size: usize,
    come: usize,
    /// What was there before.
    begun: Option<usize>,
    started: Instant,
    told: Instant,
}

impl<'a> Telling<'a> {
    fn new(model: &'a ModelId, file: &'a str) -> Self {
        let now = Instant::now();
        Self { model, file, size: 0, come: 0, begun: None, started: now, told: now }
    }
}

impl Progress for Telling<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.size, self.come, self.begun) = (size, 0, None);
    }

    fn update(&mut self, bytes: usize) {
        self.come += bytes;
        let begun = *self.begun.get_or_insert(bytes);
        if self.come == bytes {
            let (megabytes, there) = (self.size / 1_000_000, begun / 1_000_000);
            tracing::info!(model = %self.model, file = self.file, megabytes, there, "fetching");
        } else if self.told.elapsed() >= TOLD_EVERY {
            self.told = Instant::now();
            let left = self.size.saturating_sub(self.come) as f64 / self.come.saturating_sub(begun).max(1) as f64;
            let seconds_left = self.started.elapsed().mul_f64(left).as_secs();
            let percent = self.come * 100 / self.size.max(1);
            tracing::info!(model = %self.model, file = self.file, percent, seconds_left, "fetching");
        }
    }

    fn finish(&mut self) {}
}
