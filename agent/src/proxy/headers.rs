//! Headers on their way through: what belongs to one connection stays on it.
//!
//! Why: a header that speaks of one hop, taken literally at the next, is how requests are smuggled
//! past a proxy. Framing is hyper's alone: it is parsed on one side and written anew on the other.
//! Promise: after [`to_upstream`] and [`to_client`] no hop-by-hop header is left, nor one that a
//! `Connection` header names. Requests with more than one meaning are refused by [`admit`].
//! Sources: RFC 9110 sections 7.6 and 7.8, RFC 9112 sections 3.2 and 6.1.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use lens_model::Arm;

/// Says which arm answered.
pub(crate) const LENS_ARM: HeaderName = HeaderName::from_static("x-lens-arm");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers of one connection, whoever names them.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A request that is not forwarded: the status and a sentence for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
}

const fn refuse(status: StatusCode, why: &'static str) -> Result<(), Refusal> {
    Err(Refusal { status, why })
}

/// Whether a request has one meaning and can be forwarded.
///
/// # Errors
/// [`Refusal`]: a method or target of another kind of proxy, no or several hosts, a switch to
/// another protocol, or a loop.
pub(crate) fn admit<B>(request: &Request<B>, pseudonym: &str) -> Result<(), Refusal> {
    let (headers, method) = (request.headers(), request.method());
    if matches!(*method, Method::CONNECT | Method::TRACE) || !request.uri().path().starts_with('/')
    {
        return refuse(
            StatusCode::NOT_IMPLEMENTED,
            "this proxy stands before one service: ask for a path, by another method\n",
        );
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return refuse(StatusCode::BAD_REQUEST, "a request names exactly one host\n");
    }
    let upgrades = headers.get_all(header::UPGRADE).iter();
    // An offer of HTTP/2 may be passed over; any other protocol is what the client came for.
    if upgrades.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c")) {
        return refuse(
            StatusCode::NOT_IMPLEMENTED,
            "protocols are not switched through this proxy: connect to the service itself\n",
        );
    }
    let passed = |value: &HeaderValue| {
        let entries = value.to_str().unwrap_or_default().split(',');
        entries.into_iter().any(|entry| entry.split_whitespace().nth(1) == Some(pseudonym))
    };
    if headers.get_all(header::VIA).iter().any(passed) {
        return refuse(
            StatusCode::LOOP_DETECTED,
            "this request was here before: an upstream of the proxy is the proxy\n",
        );
    }
    Ok(())
}

/// Makes a client's headers those of the request to the upstream.
pub(crate) fn to_upstream(headers: &mut HeaderMap, target: &Uri, client: IpAddr, pseudonym: &str) {
    strip(headers);
    headers.remove(header::EXPECT);
    headers.remove("http2-settings");
    headers.remove(LENS_ARM);
    // A target that names a host overrules the header (RFC 9112, 3.2.2).
    if let Some(authority) = target.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    append(headers, X_FORWARDED_FOR, &client.to_string());
    append(headers, header::VIA, &format!("1.1 {pseudonym}"));
}

/// Makes an upstream's headers those of the answer to the client.
pub(crate) fn to_client(headers: &mut HeaderMap, arm: Arm) {
    strip(headers);
    headers.insert(LENS_ARM, HeaderValue::from_static(arm.as_str()));
}

/// Adds to a list that proxies on the way have begun.
fn append(headers: &mut HeaderMap, name: HeaderName, entry: &str) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(entry.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(name, value);
    }
}

/// Removes what belongs to one connection.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // The length is the body's, not the connection's, and the host is the request's: no
        // client can have them taken away.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn status(request: &Request<()>) -> u16 {
        admit(request, "proxy-a").err().map_or(200, |refusal| refusal.status.as_u16())
    }

    #[test]
    fn what_belongs_to_one_connection_or_is_named_by_it_is_not_passed_on() {
        let sent = [
            ("host", "lens"),
            ("connection", "close, X-Secret"),
            ("connection", "content-length, host, te"),
            ("x-secret", "1"),
            ("keep-alive", "5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("x-lens-arm", "canary"),
            ("content-length", "3"),
            ("authorization", "Bearer x"),
        ];
        let request = request("/search?q=a", &sent);
        let mut headers = request.headers().clone();
        to_upstream(&mut headers, request.uri(), CLIENT, "proxy-a");
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "host", "via", "x-forwarded-for"]);
    }

    #[test]
    fn the_proxy_adds_itself_and_the_client_to_the_lists_of_those_before() {
        let sent = [("host", "lens"), ("x-forwarded-for", "a"), ("x-forwarded-for", "b, c")];
        let request = request("http://other.example:81/x", &sent);
        let mut headers = request.headers().clone();
        to_upstream(&mut headers, request.uri(), CLIENT, "proxy-a");
        assert_eq!(headers["x-forwarded-for"], "a, b, c, 192.0.2.7");
        assert_eq!(headers["via"], "1.1 proxy-a");
        assert_eq!(headers["host"], "other.example:81");
    }

    #[test]
    fn an_answer_bears_the_arm_that_gave_it_whatever_the_upstream_says() {
        let mut headers = HeaderMap::new();
        headers.insert(LENS_ARM, HeaderValue::from_static("baseline"));
        headers.insert("connection", HeaderValue::from_static("x-hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        to_client(&mut headers, Arm::Canary);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[LENS_ARM], "canary");
    }

    #[test]
    fn a_request_with_two_meanings_or_for_another_kind_of_proxy_is_refused() {
        let host = ("host", "lens");
        assert_eq!(status(&request("/", &[host])), 200);
        assert_eq!(status(&request("/", &[])), 400);
        assert_eq!(status(&request("/", &[host, ("host", "other")])), 400);
        assert_eq!(status(&request("*", &[host])), 501);
        assert_eq!(status(&request("/", &[host, ("upgrade", "websocket")])), 501);
        assert_eq!(status(&request("/", &[host, ("upgrade", "h2c, websocket")])), 501);
        assert_eq!(status(&request("/", &[host, ("upgrade", "H2C")])), 200);
        let mut connect = request("/", &[host]);
        *connect.method_mut() = Method::CONNECT;
        assert_eq!(status(&connect), 501);
    }

    #[test]
    fn a_request_that_was_here_before_is_refused() {
        let via = |value| request("/", &[("host", "lens"), ("via", value)]);
        assert_eq!(status(&via("1.0 edge, 1.1 proxy-a")), 508);
        assert_eq!(status(&via("1.1 proxy-ab, 1.1 b proxy-a")), 200);
    }
}
