//! How far a run is, for whoever watches it at a terminal.

use std::{fmt, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const REDRAW: Duration = Duration::from_millis(250);
/// Before the first scores there is neither a rate nor a time that is left.
const WAITING: &str = "{spinner} {human_len} rows, {msg} ({elapsed})";
const BAR: &str = "{bar:30} {human_pos}/{human_len} rows, {rate}, {eta} left";

/// A bar on standard error where somebody watches it.
pub(super) fn waiting(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.enable_steady_tick(REDRAW);
    // The templates are constants that a test reads.
    if let Ok(style) = ProgressStyle::with_template(WAITING) {
        bar.set_style(style);
    }
    bar
}

/// The bar that tells a rate, from the first scores on.
pub(super) fn show_rate(bar: &ProgressBar) {
    if !bar.message().is_empty()
        && let Ok(style) = ProgressStyle::with_template(BAR)
    {
        bar.set_message("");
        bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A line that can't be drawn is drawn again soon.
            let _ = write!(out, "{}", rate(state.per_sec()));
        }));
        bar.reset_eta();
    }
}

/// Rows a second in as many digits as mean something, or seconds a row where they take longer.
pub(super) fn rate(rows_a_second: f64) -> String {
    match rows_a_second {
        rate if rate >= 10.0 => format!("{rate:.0} rows/s"),
        rate if rate >= 1.0 => format!("{rate:.1} rows/s"),
        rate if rate > 0.0 => format!("{:.1} s a row", 1.0 / rate),
        _ => "no rate yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok() && ProgressStyle::with_template(WAITING).is_ok());
    }

    #[test]
    fn rates_are_short_and_never_zero_for_what_is_slow() {
        assert_eq!([1234.5, 6.8106, 0.25, 0.0].map(rate), ["1234 rows/s", "6.8 rows/s", "4.0 s a row", "no rate yet"]);
    }
}
