//! How the commands speak: what was asked for on standard output, what its reader should know beside it on standard error,
//! in colour where a terminal shows it, plain elsewhere and where `NO_COLOR` is set.

use std::io::{self, Write as _};

use console::{StyledObject, style};
use serde::Serialize;

use super::CommandError;

/// What is well, on standard output.
pub(super) fn good<T>(text: T) -> StyledObject<T> {
    style(text).green()
}

/// What needs somebody, on standard error.
pub(super) fn bad<T>(text: T) -> StyledObject<T> {
    style(text).red().bold().for_stderr()
}

/// What needs somebody, on standard output.
pub(super) fn missing<T>(text: T) -> StyledObject<T> {
    style(text).yellow()
}

/// A heading, on standard output.
pub(super) fn heading<T>(text: T) -> StyledObject<T> {
    style(text).bold()
}

/// What stands beside the matter itself, on standard output.
pub(super) fn aside<T>(text: T) -> StyledObject<T> {
    style(text).dim()
}

/// Text without control characters: what a file holds may not give orders to a terminal.
#[cfg(feature = "offline")]
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// Writes what was asked for. A reader that has enough, as `head` soon does, is no failure.
pub(super) fn say(text: &str) -> Result<(), CommandError> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Writes what was asked for, for a program.
pub(super) fn say_json<T: Serialize>(value: &T) -> Result<(), CommandError> {
    say(&serde_json::to_string_pretty(value)?)
}

/// Tells what a reader should know beside what was asked for.
#[cfg(feature = "offline")]
#[expect(clippy::print_stderr, reason = "a command line program says there what its user should know")]
pub(super) fn tell(text: &str) {
    eprintln!("karat: {}", plain(text));
}
