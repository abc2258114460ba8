//! The report as text.

use std::fmt::Write as _;

use super::report::{OVERALL, Report, Share};

/// How wide the longest bar is, in characters.
const BAR: usize = 40;

/// The report as Markdown tables, shares in percent with their 95 % intervals.
pub(super) fn table(report: &Report) -> String {
    let mut text = String::from("| part | items | accuracy | ties allowed | mean reciprocal rank | mean margin |\n");
    text.push_str("|---|---|---|---|---|---|\n");
    for (name, part) in &report.parts {
        let (accuracy, with_ties) = (percent(part.accuracy), percent(part.accuracy_with_ties));
        let (rank, margin) = (part.mean_reciprocal_rank, part.mean_margin);
        line(
            &mut text,
            format_args!("| {name} | {} | {accuracy} | {with_ties} | {rank:.3} | {margin:.3} |", part.items),
        );
    }
    if report.side_by_side.len() > 1 {
        text.push('\n');
        let parts: Vec<&str> = report.parts.keys().map(String::as_str).collect();
        line(&mut text, format_args!("| accuracy | {} |", parts.join(" | ")));
        line(&mut text, format_args!("|---{}|", "|---".repeat(parts.len())));
        for (rule, shares) in &report.side_by_side {
            let cells: Vec<String> = shares.values().copied().map(percent).collect();
            line(&mut text, format_args!("| {rule} | {} |", cells.join(" | ")));
        }
    }
    if let Some(score) = &report.reward_bench_2 {
        text.push_str("\n| RewardBench 2 | score |\n|---|---|\n");
        for (subset, score) in &score.subsets {
            line(&mut text, format_args!("| {subset} | {:.1} |", 100.0 * score));
        }
        line(&mut text, format_args!("| mean of subsets | {:.1} |", 100.0 * score.mean));
    }
    text.push_str("\n| probability by margin | pairs | came true |\n|---|---|---|\n");
    for bin in &report.calibration.bins {
        let (probability, share) = (100.0 * bin.mean_probability, percent(bin.came_true));
        line(&mut text, format_args!("| {probability:.1} | {} | {share} |", bin.pairs));
    }
    let (error, brier) = (report.calibration.expected_calibration_error, report.calibration.brier);
    line(&mut text, format_args!("\nExpected calibration error {error:.3}, Brier score {brier:.3}.\n"));
    text.push_str("Margins, right less wrong:\n");
    let most = report.margins.iter().map(|bin| bin.count).max().unwrap_or(0).max(1);
    for bin in &report.margins {
        let bar = "█".repeat((bin.count * BAR).div_ceil(most));
        line(&mut text, format_args!("{:>10.3} … {:>10.3} {:>7} {bar}", bin.from, bin.to, bin.count));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a text never fails.
    let _ = writeln!(text, "{line}");
}

fn percent(share: Share) -> String {
    format!("{:.1} ({:.1}–{:.1})", 100.0 * share.share, 100.0 * share.low, 100.0 * share.high)
}

/// The accuracy of the whole file, in one line.
pub(super) fn headline(report: &Report) -> String {
    let overall = &report.parts[OVERALL];
    format!("{} preferences, accuracy {} %", overall.items, percent(overall.accuracy))
}
