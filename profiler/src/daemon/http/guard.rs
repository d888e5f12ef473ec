//! What each request passes first: the host that it names, and the token.
//!
//! A page of a web site whose name was made to lead to 127.0.0.1 (DNS rebinding) can make a browser on this host ask here,
//! and would be allowed to read the answer; but its requests name the site's host. At loopback only names of loopback are
//! answered to.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::Next,
};

use super::{
    App,
    answer::{Answer, Problem},
};

/// Passes requests on that may be answered.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Answer {
    if app.loopback && !names_loopback(request.uri(), request.headers()) {
        return Err(Problem {
            status: StatusCode::MISDIRECTED_REQUEST,
            message: "the request's Host is no name of loopback: use localhost, 127.0.0.1 or [::1]"
                .to_owned(),
        });
    }
    if let Some(token) = &app.token {
        let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
        let is_given = given.next().is_some_and(|header| token.is_in(header.as_bytes()));
        if !is_given || given.next().is_some() {
            return Err(Problem {
                status: StatusCode::UNAUTHORIZED,
                message: "a bearer token is needed: Authorization: Bearer TOKEN".to_owned(),
            });
        }
    }
    Ok(next.run(request).await)
}

/// Whether host and target of a request, as far as they name a host, name this one.
fn names_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let absolute = uri.authority().is_none_or(|authority| is_loopback(authority.as_str()));
    absolute && host.to_str().is_ok_and(is_loopback)
}

/// `localhost`, `127.0.0.1:7077`, `[::1]:80`
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:7077",
            "127.0.0.1:7077",
            "127.1.2.3",
            "[::1]",
            "[::1]:7077",
            "::1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7077",
            "10.0.0.1",
            "0.0.0.0",
            "localhost:x",
            "evil.example:127.0.0.1",
            "user@localhost",
            "[::2]:1",
            "localhost:",
            "2130706433",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn one_host_and_no_other_target() {
        let headers = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            hosts.iter().for_each(|host| _ = headers.append(header::HOST, host.parse().unwrap()));
            headers
        };
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert!(names_loopback(&uri("/metrics"), &headers(&["localhost"])));
        assert!(names_loopback(&uri("http://127.0.0.1/metrics"), &headers(&["localhost"])));
        assert!(!names_loopback(&uri("http://evil.example/metrics"), &headers(&["localhost"])));
        assert!(!names_loopback(&uri("/metrics"), &headers(&[])));
        assert!(!names_loopback(&uri("/metrics"), &headers(&["localhost", "evil.example"])));
    }
}
