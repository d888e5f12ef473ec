//! Metrics of the daemon for Prometheus and what speaks its formats.
//!
//! Windows are added up in a [`Registry`]; a page of it is rendered as Prometheus text 0.0.4, as OpenMetrics 1.0, or in
//! Prometheus' protobuf format, which alone carries native histograms ([`Format::negotiate`]).
//!
//! **Names.** `profiler_<metric>_<unit>` of [`METRICS`](crate::model::window::METRICS), in seconds and bytes, counters with
//! `_total`; the whole machine is apart as `profiler_host_...`, so that a sum over processes counts nothing twice.
//!
//! **Labels.** `comm`, `unit`, `container`, `pod` and what the metric itself has (`cause`, `call`), never a pid: series stay
//! few and live long. At most so many of them have numbers of their own, the rest is exact in `[other]`: see [`shown`].
//!
//! **Histograms.** Ours are log-linear: each power of two of ns in 16 equal buckets. Native ones have bounds 2^(i/8) *seconds*
//! (schema 3), of which none is a bound of ours; so a count stands in the native bucket of the largest value that it can be
//! of. Schema 3 is the finest one whose buckets (9.1 % wide) are wider than ours (at most 6.25 %): each of ours is in one
//! native bucket or has one bound in it, a count is in the right bucket or in the next higher one, by at most 6.25 % of its
//! value, and always in the same one, so that buckets only grow. Bounds of classic buckets are chosen among ours
//! (2^n - 1 ns), where nothing moves at all: see [`histogram`].
//!
//! **Why own encoders.** prometheus-client 0.26 writes all three formats, but its protobuf compiles `.proto` files when it is
//! built, by `protoc` or by 20 crates that nothing else here needs, and it has no place for the time when a counter began,
//! which tells a series that comes back from one that goes on. prost is here anyway for pprof, and messages in it are the
//! same size as the calls into that library.

mod accept;
mod family;
pub mod histogram;
mod own;
mod protobuf;
mod registry;
pub mod shown;
mod text;

pub use accept::Format;
pub use own::Own;
pub use registry::{Registry, metrics_table};
