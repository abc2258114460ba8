//! karat's own routes, one file each.

mod backlog;
mod best_of_n;
mod call;
mod catalogue;
mod compare;
mod critique;
mod envelope;
mod health;
mod jobs;
mod loading;
mod metrics;
mod models;
mod normaliser;
mod probe;
mod process;
mod request;
mod result;
mod runs;
mod score;
mod tokens;
mod tournament;
mod traffic;
mod turn;

use aide::axum::ApiRouter;

use super::AppState;

pub(super) use backlog::{Backlog, work as work_on_backlog};
pub(super) use jobs::{Progress, work as work_on_jobs};

/// Every native route.
pub(super) fn router() -> ApiRouter<AppState> {
    ApiRouter::new()
        .merge(score::routes())
        .merge(best_of_n::routes())
        .merge(compare::routes())
        .merge(critique::routes())
        .merge(process::routes())
        .merge(probe::routes())
        .merge(tournament::routes())
        .merge(tokens::routes())
        .merge(metrics::routes())
        .merge(catalogue::routes())
        .merge(models::routes())
        .merge(normaliser::routes())
        .merge(runs::routes())
        .merge(jobs::routes())
        .merge(loading::routes())
        .merge(traffic::routes())
        .merge(health::routes())
}
