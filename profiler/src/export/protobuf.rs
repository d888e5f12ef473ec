//! The protobuf format of Prometheus (`io.prometheus.client`, github.com/prometheus/client_model): messages with their
//! length before them. Fields that we do not write are left out of the messages.

use prost::Message as _;

use super::{
    family::{Family, FamilyKind, Sample, Value, in_base_unit},
    histogram::{Buckets, SCHEMA},
    text::suffix,
};
use crate::model::Unit;

/// Largest value, in base units, of the bucket for zero: below any that is counted.
const ZERO_THRESHOLD: f64 = 1e-10;

/// `MetricType`
const COUNTER: i32 = 0;
const GAUGE: i32 = 1;
const HISTOGRAM: i32 = 4;

// Optional scalars: their presence is told, as protocol version 2 wants it, which the messages are defined in.

#[derive(Clone, PartialEq, prost::Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Gauge {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Counter {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    start: Option<Timestamp>,
}

/// `google.protobuf.Timestamp`
#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    start: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// The page.
pub fn encode(families: &[Family<'_>]) -> Vec<u8> {
    let families = families.iter().filter(|family| !family.samples.is_empty());
    families.flat_map(|family| message(family).encode_length_delimited_to_vec()).collect()
}

fn message(family: &Family<'_>) -> MetricFamily {
    MetricFamily {
        name: Some(format!("{}{}", family.name, suffix(family.kind))),
        help: Some(family.help.to_owned()),
        kind: Some(match family.kind {
            FamilyKind::Counter => COUNTER,
            FamilyKind::Gauge | FamilyKind::Info => GAUGE,
            FamilyKind::Histogram => HISTOGRAM,
        }),
        metric: family.samples.iter().map(|sample| metric(sample, family)).collect(),
    }
}

fn metric(sample: &Sample<'_>, family: &Family<'_>) -> Metric {
    let mut metric = Metric {
        label: sample
            .labels
            .iter()
            .map(|(name, value)| LabelPair {
                name: Some((*name).to_owned()),
                value: Some(value.clone().into_owned()),
            })
            .collect(),
        ..Metric::default()
    };
    match (&sample.value, family.kind) {
        (Value::Buckets(buckets), _) => {
            metric.histogram = Some(histogram(buckets, family.unit, sample.since_unix_ns));
        }
        (Value::Number(value), FamilyKind::Counter) => {
            let value = Some(in_base_unit(*value, family.unit));
            metric.counter = Some(Counter { value, start: timestamp(sample.since_unix_ns) });
        }
        (Value::Number(value), _) => {
            metric.gauge = Some(Gauge { value: Some(in_base_unit(*value, family.unit)) });
        }
    }
    metric
}

fn histogram(buckets: &Buckets, unit: Unit, since_unix_ns: u64) -> Histogram {
    let (spans, positive_delta) = buckets.spans();
    Histogram {
        count: Some(buckets.count),
        sum: Some(in_base_unit(buckets.sum, unit)),
        // For who does not read native ones.
        bucket: buckets
            .cumulative()
            .map(|(bound, count)| Bucket {
                cumulative_count: Some(count),
                upper_bound: Some(in_base_unit(bound, unit)),
            })
            .collect(),
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD),
        zero_count: Some(buckets.zero),
        positive_span: spans
            .into_iter()
            .map(|(offset, length)| BucketSpan { offset: Some(offset), length: Some(length) })
            .collect(),
        positive_delta,
        start: timestamp(since_unix_ns),
    }
}

fn timestamp(unix_ns: u64) -> Option<Timestamp> {
    (unix_ns > 0).then_some(Timestamp {
        seconds: (unix_ns / 1_000_000_000) as i64,
        nanos: (unix_ns % 1_000_000_000) as i32,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::export::{Format, registry::tests::registry};

    fn read(page: &[u8]) -> Vec<MetricFamily> {
        let (mut rest, mut families) = (page, Vec::new());
        while !rest.is_empty() {
            families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
        }
        families
    }

    fn find<'a>(families: &'a [MetricFamily], name: &str) -> &'a MetricFamily {
        families.iter().find(|family| family.name.as_deref() == Some(name)).unwrap()
    }

    #[test]
    fn counters_gauges_and_native_histograms() {
        let families = read(&registry("x").page(Format::Protobuf));
        let cpu = &find(&families, "profiler_host_cpu_seconds_total").metric[0];
        let counter = cpu.counter.as_ref().unwrap();
        assert_eq!(counter.value, Some(13.500000009));
        assert_eq!(counter.start.as_ref().unwrap().seconds, 1_700_000_000);
        assert_eq!(find(&families, "profiler_build_info").kind, Some(GAUGE));
        let wait =
            find(&families, "profiler_host_run_queue_wait_seconds").metric[0].histogram.as_ref().unwrap();
        assert_eq!((wait.count, wait.zero_count, wait.schema), (Some(14), Some(2), Some(3)));
        // 3 of up to 1087 ns, 9 of up to 4,456,447 ns: buckets -158 (up to 1.134 µs) and -62 (up to 4.65 ms).
        let spans: Vec<_> =
            wait.positive_span.iter().map(|s| (s.offset.unwrap(), s.length.unwrap())).collect();
        assert_eq!(spans, [(-158, 1), (95, 1)]);
        assert_eq!(wait.positive_delta, [3, 6]);
        assert_eq!(wait.bucket.last().unwrap().cumulative_count, Some(14));
        assert_eq!(wait.bucket[0].upper_bound, Some(0.000001023));
    }

    proptest! {
        #[test]
        fn names_come_back(name in "\\PC{1,40}") {
            let families = read(&registry(&name).page(Format::Protobuf));
            let metrics = &find(&families, "profiler_cpu_seconds_total").metric;
            let has = |metric: &Metric| metric.label.iter().any(|label| label.value.as_deref() == Some(name.as_str()));
            prop_assert!(metrics.iter().any(has));
        }
    }
}
