//! What `karat serve` says at a terminal: where it listens, how far the models are, and what runs where.
//!
//! Whoever keeps logs gets log lines instead.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use console::style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use karat_engine::{
    engine::Engine,
    repository::{Model, ModelBody, ModelStatus},
};
use karat_rules::domain::ModelName;

use super::style::bad;
use crate::telemetry::Build;

const REDRAW: Duration = Duration::from_millis(100);
const BAR: &str = "  {spinner} {bar:20} {pos} of {len} models {msg}";
/// As many models are told one by one; the console has them all.
const SHOWN: usize = 6;

type Models = BTreeMap<ModelName, ModelStatus>;

/// Tells where the server listens, and follows the models on a thread of its own until each is ready or has failed.
///
/// # Errors
/// When the thread can't be started.
pub(super) fn show(engine: &Arc<Engine>, address: SocketAddr, onnxruntime: &Path) -> io::Result<()> {
    let url = style(format!("http://{address}/")).cyan().for_stderr();
    say(&format!("karat {}, with ONNX Runtime from {}", Build::CURRENT.version, onnxruntime.display()));
    say(&format!("  listens at {url}, where a browser finds the console"));
    let engine = Arc::downgrade(engine);
    // It ends with the engine, or once there is nothing more to tell.
    thread::Builder::new().name("karat-banner".to_owned()).spawn(move || follow(&engine))?;
    Ok(())
}

fn follow(engine: &Weak<Engine>) {
    let started = Instant::now();
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    // The template is a constant that a test reads.
    if let Ok(style) = ProgressStyle::with_template(BAR) {
        bar.set_style(style);
    }
    loop {
        thread::sleep(REDRAW);
        let Some(engine) = engine.upgrade() else { return bar.finish_and_clear() };
        let models: Models =
            engine.repository().models().into_iter().map(|(name, listed)| (name, listed.status)).collect();
        let waiting: Vec<&str> =
            models.iter().filter(|(_, status)| is_waiting(status)).map(|(name, _)| name.as_str()).collect();
        if !models.is_empty() && waiting.is_empty() {
            bar.finish_and_clear();
            return summary(&models).iter().chain([&ending(&models, started.elapsed())]).for_each(|line| say(line));
        }
        bar.set_length(models.len() as u64);
        bar.set_position((models.len() - waiting.len()) as u64);
        bar.set_message(waiting.first().map(|name| format!("({name} …)")).unwrap_or_default());
        bar.tick();
    }
}

fn is_waiting(status: &ModelStatus) -> bool {
    matches!(status, ModelStatus::Loading | ModelStatus::Building(_))
}

/// A line for each model, the broken ones first.
fn summary(models: &Models) -> Vec<String> {
    let width = models.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
    let mut told: Vec<(&ModelName, &ModelStatus)> = models.iter().collect();
    told.sort_by_key(|(_, status)| !matches!(status, ModelStatus::Failed(_)));
    let line = |(name, status): &(&ModelName, &ModelStatus)| match status {
        ModelStatus::Ready(model) => format!("  {:<width$}  {}", name.as_str(), place(model)),
        ModelStatus::Failed(reason) => format!("  {:<width$}  {} {reason}", name.as_str(), bad("failed:")),
        ModelStatus::Loading | ModelStatus::Building(_) => format!("  {:<width$}  loading", name.as_str()),
        ModelStatus::Unloaded => format!("  {:<width$}  unloaded", name.as_str()),
    };
    let mut lines: Vec<String> = told.iter().take(SHOWN).map(line).collect();
    if told.len() > SHOWN {
        lines.push(format!("  and {} more", told.len() - SHOWN));
    }
    lines
}

/// What a model runs on, and which one it is.
fn place(model: &Model) -> String {
    let place = match &model.body {
        ModelBody::Graph(graph) => {
            let mut providers: Vec<&str> = graph.units.iter().map(|unit| unit.provider.as_str()).collect();
            providers.dedup();
            providers.join(", ")
        }
        ModelBody::Composite(members) => {
            let names: Vec<&str> = members.iter().map(|member| member.model.name.as_str()).collect();
            format!("made of {}", names.join(" and "))
        }
    };
    format!("{place}, {} tokens, version {}", model.max_tokens(), model.version)
}

fn ending(models: &Models, took: Duration) -> String {
    let ready: Vec<&ModelName> =
        models.iter().filter(|(_, status)| matches!(status, ModelStatus::Ready(_))).map(|(name, _)| name).collect();
    match ready.first() {
        Some(name) => format!(
            "Ready after {:.1} s. Ctrl-C ends it. Next: karat score FILE --output SCORES --model {name}, or the console",
            took.as_secs_f64()
        ),
        None => format!("{} Mend what is told above, or try: karat inspect FOLDER", bad("No model is ready.")),
    }
}

#[expect(clippy::print_stderr, reason = "it is what somebody at the terminal should know")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_can_be_drawn() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn what_is_broken_comes_first_and_few_lines_are_told() {
        let mut models: Models =
            (0..9).map(|index| (format!("a{index}").parse().unwrap(), ModelStatus::Loading)).collect();
        models.insert("z".parse().unwrap(), ModelStatus::Failed("no graph".to_owned()));
        let lines = summary(&models);
        assert!(lines[0].contains("failed: no graph"), "{lines:?}");
        assert_eq!((lines.len(), lines[SHOWN].as_str()), (SHOWN + 1, "  and 4 more"));
        assert!(ending(&models, Duration::ZERO).contains("No model is ready"));
    }
}
