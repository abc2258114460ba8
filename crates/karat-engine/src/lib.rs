//! A model's life and a request's life: what a manifest says, which tokens a sample becomes, what runs next, what is
//! written, and what is scored.

pub mod engine;
pub mod generate;
pub mod image;
pub mod input;
pub mod manifest;
pub mod repository;
pub mod schedule;
pub mod telemetry;
pub mod text;
mod workers;
