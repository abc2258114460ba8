//! karat's own routes, one file each.

mod apart;
mod best_of_n;
mod call;
mod catalogue;
mod compare;
mod critique;
mod envelope;
mod health;
mod loading;
mod metrics;
mod models;
mod process;
mod request;
mod result;
mod score;
mod tokens;
mod traffic;
mod turn;

use aide::axum::ApiRouter;

use super::AppState;

/// Every native route.
pub(super) fn router() -> ApiRouter<AppState> {
    ApiRouter::new()
        .merge(score::routes())
        .merge(best_of_n::routes())
        .merge(compare::routes())
        .merge(critique::routes())
        .merge(process::routes())
        .merge(tokens::routes())
        .merge(metrics::routes())
        .merge(catalogue::routes())
        .merge(models::routes())
        .merge(loading::routes())
        .merge(traffic::routes())
        .merge(health::routes())
}
