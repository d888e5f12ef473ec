//! Which format a client gets, by its `Accept` header (RFC 9110, 12.5.1).

/// A format of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily` messages, each behind its length; with native histograms.
    Protobuf,
}

/// Most media types of a header that are looked at.
const MAX_TYPES: usize = 32;

impl Format {
    /// Its `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The one that the header likes best; of equal ones the first. Text if it names none: a page in a format that was not
    /// asked for says more than an error.
    pub fn negotiate(accept: &str) -> Self {
        let mut best = (Self::Text, 0);
        for part in accept.split(',').take(MAX_TYPES) {
            let mut words = part.split(';').map(str::trim);
            let media = words.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<(String, &str)> = words
                .filter_map(|word| word.split_once('='))
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
                .collect();
            let parameter =
                |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            let quality = parameter("q").map_or(1000, thousandths);
            let format = match media.as_str() {
                "application/vnd.google.protobuf"
                    if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                        && parameter("encoding") == Some("delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text"
                    if parameter("version").is_none_or(|version| ["1.0.0", "0.0.1"].contains(&version)) =>
                {
                    Self::OpenMetrics
                }
                "text/plain" if parameter("version").is_none_or(|version| version == "0.0.4") => Self::Text,
                "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }
}

/// A quality, of 1000; 0 if it is none.
fn thousandths(text: &str) -> u32 {
    let quality: f64 = text.parse().unwrap_or(0.0);
    // 0 to 1000, and NaN is 0.
    (quality.clamp(0.0, 1.0) * 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_prometheus_asks_for() {
        let native = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
            application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::negotiate(native), Format::Protobuf);
        let usual = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::negotiate(usual), Format::OpenMetrics);
    }

    #[test]
    fn others() {
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("text/plain;version=0.0.4;q=0.5, application/openmetrics-text;q=0.4", Format::Text),
            ("application/vnd.google.protobuf;proto=x;encoding=delimited,*/*;q=0.1", Format::Text),
            ("application/openmetrics-text; version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text; version=2.0.0", Format::Text),
            ("APPLICATION/OpenMetrics-Text;q=0", Format::Text),
            ("application/openmetrics-text;q=NaN", Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn any_header_has_a_format(accept in "[ -~]{0,300}") {
            Format::negotiate(&accept);
        }
    }
}
