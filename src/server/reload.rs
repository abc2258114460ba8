//! Files that are read anew when they change.
//!
//! They are compared by what is in them, every so often: orchestrators swap links and folders, of which the watching of
//! a file learns nothing, and an editor changes a file's time without changing a word.

use std::{fs, io, path::PathBuf, time::Duration};

use tokio::{sync::mpsc, time::interval};

/// How often files are looked at. They are small, and what is in them is waited for by nobody who counts seconds.
const PERIOD: Duration = Duration::from_secs(2);

/// Files and what was found in them last.
#[derive(Debug)]
pub(crate) struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Result<Vec<u8>, io::ErrorKind>>,
}

impl Watched {
    /// The files as they are now.
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        let seen = read(&files);
        Self { files, seen }
    }

    /// Whether something in them is otherwise than the last time.
    fn changed(&mut self) -> bool {
        let now = read(&self.files);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }

    /// Calls `reload` when a file has changed, and whenever `told` says so. Never ends.
    pub(crate) async fn keep(mut self, mut told: mpsc::UnboundedReceiver<()>, reload: impl Fn()) {
        let mut looks = interval(PERIOD);
        let mut listens = true;
        loop {
            let wanted = tokio::select! {
                _ = looks.tick() => false,
                word = told.recv(), if listens => {
                    listens = word.is_some();
                    listens
                }
            };
            if self.changed() || wanted {
                reload();
            }
        }
    }
}

fn read(files: &[PathBuf]) -> Vec<Result<Vec<u8>, io::ErrorKind>> {
    files.iter().map(|file| fs::read(file).map_err(|error| error.kind())).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn files_are_read_anew_when_they_change_and_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let (tell, told) = mpsc::unbounded_channel();
        let reloads = Cell::new(0);
        let mut watching = Box::pin(Watched::new(vec![file.clone()]).keep(told, || reloads.set(reloads.get() + 1)));
        let mut pass = async || {
            let _ = timeout(PERIOD * 2, &mut watching).await;
            reloads.get()
        };

        assert_eq!(pass().await, 0, "nothing has changed");
        fs::write(&file, "a").unwrap();
        assert_eq!(pass().await, 1, "it is there now");
        // A file that is swapped by a link has another place and perhaps an older time.
        fs::write(folder.path().join("other"), "b").unwrap();
        fs::rename(folder.path().join("other"), &file).unwrap();
        assert_eq!(pass().await, 2);
        fs::write(&file, "b").unwrap();
        assert_eq!(pass().await, 2, "the same words");
        tell.send(()).unwrap();
        assert_eq!(pass().await, 3, "told");
        drop(tell);
        fs::remove_file(&file).unwrap();
        assert_eq!(pass().await, 4, "it is gone");
    }
}
