//! Guides: how to use this crate, page by page. These modules have no items.
//!
//! **Begin**
//!
//! - [Getting started](getting_started): axum, hyper, a stack of tower layers, tonic on the same
//!   port.
//! - [Browsers and credentials](browsers): what a page can send, and which credential to use.
//! - [Migrating](migrating) from `from_fn`, `ValidateRequestHeaderLayer` and axum's settings.
//! - [Testing](testing) a policy, without a socket.
//!
//! **Run it**
//!
//! - [Behind a proxy](proxies): nginx, HAProxy, Apache httpd, Caddy, Envoy, Traefik, Cloudflare, AWS.
//! - [Tenants and changing policies](policies).
//! - [A fleet](fleet) of servers that share a Redis.
//! - [Operating](operating): logs, metrics, alerts, report-only mode, the drain.
//! - [Hardening](hardening): what you must bound in hyper, axum and your codec.
//!
//! **Understand it**
//!
//! - [Rejections by code](rejections): meaning, causes and fix of each.
//! - [Threats](threats): attacks, incidents in other software, and what is up to you.
//!
//! The nine steps of a handshake are in [`guard`].

#[allow(unused_imports, reason = "the links of the pages")]
use crate::*;

/// Browsers and credentials: what a page can send, and which credential to use when.
#[doc = include_str!("../docs/browsers.md")]
pub mod browsers {}

/// A fleet: several servers that share a Redis.
#[doc = include_str!("../docs/fleet.md")]
pub mod fleet {}

/// Getting started: axum, hyper, a stack of tower layers, and tonic on the same port.
#[doc = include_str!("../docs/getting-started.md")]
pub mod getting_started {}

/// Hardening: what this crate bounds, what hyper and axum bound if you configure them, and what is
/// up to you.
#[doc = include_str!("../docs/hardening.md")]
pub mod hardening {}

/// Migrating: from `from_fn`, from tower-http's `ValidateRequestHeaderLayer`, from axum's settings.
#[doc = include_str!("../docs/migrating.md")]
pub mod migrating {}

/// Operating: logs, metrics, alerts, report-only mode, and the drain.
#[doc = include_str!("../docs/operating.md")]
#[doc = concat!("```yaml\n", include_str!("../docs/alerts.yml"), "```")]
pub mod operating {}

/// Tenants and changing policies: one list for sockets and CORS, one policy for each tenant, and
/// policies that change while the server runs.
#[doc = include_str!("../docs/policies.md")]
pub mod policies {}

/// Behind a proxy: what each one needs, and what changes for the guard.
///
#[doc = include_str!("../docs/proxy.svg")]
///
#[doc = include_str!("../docs/proxies.md")]
pub mod proxies {}

/// Rejections by code: why a WebSocket does not open, and how to fix it.
#[doc = include_str!("../docs/rejections.md")]
pub mod rejections {}

/// Testing a policy: without a socket, and against a running server.
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}

/// Threats and defenses: the attacks on a WebSocket endpoint, with incidents in other software.
///
#[doc = include_str!("../docs/hijacking.svg")]
///
#[doc = include_str!("../docs/threats.md")]
pub mod threats {}
