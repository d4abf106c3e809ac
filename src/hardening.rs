#![doc = include_str!("../docs/hardening.md")]
