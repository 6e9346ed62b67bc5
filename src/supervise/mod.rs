//! Processes that live on: the server, the application, their output, signals to ourselves, whoever started us. No policy: what is to be
//! started or stopped, and when, is decided by `plan`.

pub mod app;
pub mod manager;
pub mod output;
pub mod postgres;
pub mod signals;
pub mod tool;
