//! The suite against a server that conforms, and against one fault at a time.

mod faults;
mod outputs;
mod server;
mod untestable;
