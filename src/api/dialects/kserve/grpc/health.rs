//! gRPC's own health protocol, as Kubernetes asks for it.

use std::pin::Pin;

use futures_util::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server};

use super::super::find;
use crate::api::{AppState, problem::ProblemType};

/// Says whether the server, or one model, takes requests. A service is the inference service or a model's name.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) state: AppState,
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let serves = match service.as_str() {
            "" | "inference.GRPCInferenceService" => self.state.is_ready(),
            model => match find(&self.state, model, None) {
                Ok(_) => true,
                Err(problem) if problem.kind() == ProblemType::ModelUnavailable => false,
                Err(problem) => return Err(Status::not_found(problem.detail())),
            },
        };
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // Clients that may not watch ask again and again, as the protocol has them do.
        Err(Status::unimplemented("ask with Check"))
    }
}
