//! The daemon: continuous recording in windows, kept in the store, counted for Prometheus, asked over HTTP, controlled over a
//! unix socket.
//!
//! What serves others knows of the recording only [`state::State`]: numbers that the core puts there, and a channel of
//! [`control::Command`]s to it. So a slow client cannot make a window late.

pub mod config;
pub mod control;
pub mod http;
pub mod notify;
pub mod servers;
pub mod socket;
pub mod state;
