//! The training run that requests belong to. Its step goes on as they are sent, so their bodies can't be written whole
//! beforehand.

use bytes::{Buf, Bytes, buf::Chain};
use clap::Args;

use crate::plan::Request;

/// A request's body: what is written as it is sent, and the rest.
pub(crate) type Body = Chain<Bytes, Bytes>;

/// Which run requests belong to, and how its steps follow each other.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// The training run that requests belong to, where the server keeps statistics of runs
    #[arg(long)]
    run: Option<String>,
    /// The run's first step
    #[arg(long, default_value_t = 0, requires = "run")]
    first_step: usize,
    /// How many requests make a step
    #[arg(long, default_value_t = 32, requires = "run")]
    step_requests: usize,
    /// Write as many spaces in place of the run: what is compared with requests of a run has bodies as long
    #[arg(long, requires = "run")]
    blank: bool,
}

impl RunOptions {
    /// What is sent of a request, the `number`th from 0.
    pub(crate) fn body(&self, request: &Request, number: usize) -> Body {
        let Some(run) = &self.run else { return request.body() };
        let step = self.first_step + number / self.step_requests.max(1);
        // Every dialect's body is an object with fields, and a run's name needs no escapes.
        let mut head = format!(r#"{{"run":"{run}","step":{step},"#);
        if self.blank {
            head = format!("{:width$}", "{", width = head.len());
        }
        Bytes::from(head).chain(request.body.slice(1..))
    }
}

impl Request {
    /// What is sent of a request that belongs to no run.
    pub(crate) fn body(&self) -> Body {
        Bytes::new().chain(self.body.clone())
    }
}
