//! What lasts: one `SQLite` file, written by one thread.
//!
//! An answer is given only once what it acknowledges is committed, so that a process that is killed at any moment has lost
//! nothing that it said it had. Many who write at once share a commit. Without a folder the same tables live in memory.

mod jobs;
mod learned;
mod outcomes;
mod schema;
mod snapshots;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

pub use jobs::{Accepted, Job, JobRow, JobState, JobStore, NewJob, ResultRow, RunningJob, Submission};
pub use outcomes::Outcome;

/// The file's name in the folder.
const FILE: &str = "karat.sqlite";
/// How many calls wait for the thread.
const QUEUE: usize = 1024;
/// The most calls that share a commit.
const TOGETHER: usize = 256;

/// Why something can't be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The folder or its file can't be opened.
    #[error(
        "the state in {folder} can't be opened: {source}; name another --state folder, or end the server that uses it"
    )]
    Open {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: Arc<rusqlite::Error>,
    },
    /// The folder can't be made, or the thread not started.
    #[error("the state can't be kept: {0}")]
    Io(Arc<io::Error>),
    /// The file was written by a later version.
    #[error(
        "the state in {folder} is of version {found}, and this karat knows {known}; start a newer one, or name another --state folder"
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// The file's version.
        found: u32,
        /// The version that is known.
        known: u32,
    },
    /// There is no room on the disk for what is to be kept.
    #[error("the disk with the --state folder is full; free some room there, and what was refused can be sent again")]
    Full,
    /// A statement failed.
    #[error("the state can't be written or read: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The thread has ended.
    #[error("the state is closed: the server is shutting down")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sqlite(Arc::new(error)),
        }
    }
}

/// The way to the thread that owns the file. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    queue: SyncSender<Box<dyn Call>>,
    lasts: bool,
}

/// Something to do with the file, and somebody who waits for it.
trait Call: Send {
    /// Does it within a transaction, which is another's as well.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Work<T, F, A> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: A,
}

impl<T, F, A> Call for Work<T, F, A>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    A: FnOnce(Result<T, StoreError>) + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // What fails takes back what it wrote, and nothing of what others wrote.
        let run = || {
            connection.execute_batch("SAVEPOINT work")?;
            let result = work(connection);
            let end = if result.is_ok() { "RELEASE work" } else { "ROLLBACK TO work; RELEASE work" };
            let ended = connection.execute_batch(end);
            // Why the work failed says more than that nothing of it is left to be taken back.
            result.and_then(|value| ended.map(|()| value))
        };
        let result = run().map_err(StoreError::from);
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = self.result.unwrap_or(Err(StoreError::Closed));
        (self.answer)(committed.and(result));
    }
}

impl Store {
    /// Opens the file in a folder, which is made where it isn't there; without a folder, tables in memory.
    ///
    /// # Errors
    /// When the folder can't be used, another process uses it, or a later version wrote it.
    pub fn open(folder: Option<&Path>) -> Result<Self, StoreError> {
        let io = |error| StoreError::Io(Arc::new(error));
        let connection = match folder {
            None => Connection::open_in_memory()?,
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(io)?;
                let opened = Connection::open(folder.join(FILE)).and_then(|connection| {
                    schema::prepare_file(&connection)?;
                    Ok(connection)
                });
                opened.map_err(|source| StoreError::Open { folder: folder.to_owned(), source: Arc::new(source) })?
            }
        };
        schema::create(&connection, folder)?;
        let (queue, calls) = sync_channel(QUEUE);
        thread::Builder::new().name("karat-state".to_owned()).spawn(move || serve(&connection, &calls)).map_err(io)?;
        Ok(Self { queue, lasts: folder.is_some() })
    }

    /// Whether it is still there after a restart.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.lasts
    }

    /// Does something with the file; the answer comes once it is committed.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, answered) = oneshot::channel();
        // Who asked may have gone.
        let answer = move |result| drop(tell.send(result));
        let mut call: Box<dyn Call> = Box::new(Work { work: Some(work), result: None, answer });
        // The thread empties the queue in milliseconds: whoever finds it full yields to the others.
        while let Err(error) = self.queue.try_send(call) {
            match error {
                std::sync::mpsc::TrySendError::Full(back) => call = back,
                std::sync::mpsc::TrySendError::Disconnected(_) => return Err(StoreError::Closed),
            }
            tokio::task::yield_now().await;
        }
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same for who isn't asynchronous.
    fn call_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, answered) = sync_channel(1);
        let answer = move |result| drop(tell.send(result));
        self.queue.send(Box::new(Work { work: Some(work), result: None, answer })).map_err(|_| StoreError::Closed)?;
        answered.recv().unwrap_or(Err(StoreError::Closed))
    }
}

fn serve(connection: &Connection, calls: &Receiver<Box<dyn Call>>) {
    while let Ok(first) = calls.recv() {
        let mut waiting = VecDeque::from([first]);
        while waiting.len() < TOGETHER
            && let Ok(call) = calls.try_recv()
        {
            waiting.push_back(call);
        }
        while !waiting.is_empty() {
            commit_together(connection, &mut waiting);
        }
    }
}

/// Does what waits in one transaction and answers it. Where that breaks off, what hasn't been begun still waits.
fn commit_together(connection: &Connection, waiting: &mut VecDeque<Box<dyn Call>>) {
    let mut begun = Vec::with_capacity(waiting.len());
    let mut committed = connection.execute_batch("BEGIN IMMEDIATE").map_err(StoreError::from);
    if committed.is_err() {
        begun.extend(waiting.drain(..));
    }
    while committed.is_ok()
        && let Some(mut call) = waiting.pop_front()
    {
        let outcome = call.run(connection);
        begun.push(call);
        // SQLite takes a whole transaction back where there is no room for a part of it.
        if let Err(error) = outcome
            && connection.is_autocommit()
        {
            committed = Err(error);
        }
    }
    let committed = committed.and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    if let Err(error) = &committed {
        tracing::error!(%error, "the state was not written");
        if !connection.is_autocommit() {
            // A transaction that couldn't be committed would be in the way of the next.
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
    begun.into_iter().for_each(|call| call.answer(committed.clone()));
}

#[cfg(test)]
mod tests;
