//! The daemon: continuous recording in windows, kept in the store, counted for Prometheus, asked over HTTP, controlled over a
//! unix socket.
//!
//! | thread | does |
//! |---|---|
//! | the first one ([`run`]) | follows events, drains the kernel's maps, ends windows; takes commands and signals |
//! | `windows` ([`writer`]) | names and sums up what windows have, writes them to the store, counts them for /metrics |
//! | `servers` ([`serving`]) | HTTP, and the control socket |
//! | one for each profile on demand ([`demand`]) | a recording of its own |
//!
//! What serves others knows of the recording only [`state::State`]: numbers that the core puts there, and a channel of
//! [`control::Command`]s to it. So a slow client cannot make a window late.

pub mod config;
pub mod control;
pub mod demand;
pub mod governor;
pub mod http;
pub mod notify;
pub mod options;
pub mod run;
pub mod servers;
pub mod serving;
pub mod socket;
pub mod state;
pub mod writer;
