//! Everything that stands in the way of serving a folder, told at once.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Why a folder can't be served as it lies there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CheckpointError {
    /// The folder.
    pub folder: PathBuf,
    /// What is wrong and what to do about it, a sentence each; at least one.
    pub problems: Vec<String>,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.folder.display())?;
        match self.problems.as_slice() {
            [only] => f.write_str(only),
            several => {
                write!(f, "{} things stand in the way", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

/// Problems that are being collected.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// Notes a problem; gives `None`, as what was asked for isn't there.
    pub(crate) fn add<T>(&mut self, problem: impl Into<String>) -> Option<T> {
        let problem = problem.into();
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
        None
    }

    /// What was asked for, or its problem noted.
    pub(crate) fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problem) => self.add(problem),
        }
    }

    /// What is done for a part of the whole, whose problems begin with its name.
    pub(crate) fn within<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let mut own = Self::default();
        let done = work(&mut own);
        for problem in own.0 {
            self.add::<()>(format!("{name}: {problem}"));
        }
        done
    }

    /// The value, if it is there and nothing stands in the way.
    pub(crate) fn finish<T>(self, folder: &Path, value: Option<T>) -> Result<T, CheckpointError> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(CheckpointError { folder: folder.to_owned(), problems: self.0 }),
        }
    }
}
