//! Rows scored by requests, of which a few are in flight.

use futures_util::{StreamExt, stream};

use super::{
    Lines, Summary,
    reader::{Parcel, Passed, Source, WaitingRow},
};
use crate::cli::{
    CommandError,
    backend::{Backend, Scored},
};

/// Scores everything.
pub(super) async fn run(
    source: Source,
    mut lines: Lines<'_>,
    backend: &Backend,
    in_flight: usize,
) -> Result<Summary, CommandError> {
    let parcels = source.read(lines.output.earlier()?, in_flight)?;
    let parcels = stream::unfold(parcels, async |mut parcels| parcels.recv().await.map(|parcel| (parcel, parcels)));
    let mut scored = Box::pin(parcels.map(|parcel| score(backend, parcel)).buffered(in_flight));
    while let Some(parcel) = scored.next().await {
        match parcel? {
            Scores::Done(passed) => lines.pass(passed),
            Scores::Rows(rows) => lines.write(rows)?,
        }
    }
    lines.finish()
}

enum Scores {
    Done(Passed),
    Rows(Vec<(WaitingRow, Result<Scored, String>)>),
}

async fn score(backend: &Backend, parcel: Parcel) -> Result<Scores, CommandError> {
    let rows = match parcel {
        Parcel::Done(passed) => return Ok(Scores::Done(passed)),
        Parcel::Broken(error) => return Err(error),
        Parcel::Rows(rows) => rows,
    };
    // Rows that can't be sent keep their reason; the others are scored together.
    let inputs: Vec<_> = rows.iter().filter_map(|row| row.input.clone().ok()).collect();
    let mut outcomes = backend.score(&inputs).await?.into_iter();
    let outcome = |row: WaitingRow| {
        let outcome = match &row.input {
            Ok(_) => outcomes.next().unwrap_or_else(|| Err("got no score".to_owned())),
            Err(reason) => Err(reason.clone()),
        };
        (row, outcome)
    };
    Ok(Scores::Rows(rows.into_iter().map(outcome).collect()))
}
