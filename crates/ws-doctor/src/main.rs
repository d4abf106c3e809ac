//! Says why a WebSocket handshake fails, and what to do. `ws-doctor --help` lists the options.

use std::process::ExitCode;

fn main() -> ExitCode {
    ws_doctor::main()
}
