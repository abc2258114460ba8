//! How words look at a terminal: in colour where there is one, plain where there is none or `NO_COLOR` is set.

use console::{StyledObject, style};

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
