//! Under which names the admin port may be asked. A page that an operator's browser has open can
//! give its own name an address of ours, and would then read what we answer (attack 115).

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    http::{StatusCode, header::HOST},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tidings_client::terminal;

use super::Client;
use crate::{config::Config, limits::LOGGED_CHARACTERS, shared::Shared};

/// Whoever is asked under another name than its own answers nothing.
pub(super) async fn is_right(
    State(shared): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Response {
    let host = request.headers().get(HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let config = &shared.settings.config;
    if is_ours(host, config, client.local.ip()) {
        return next.run(request).await;
    }
    let said: String = terminal::safe(host)
        .chars()
        .take(LOGGED_CHARACTERS)
        .collect();
    let why = format!(
        "this broker is not asked as {said:?}; ask it as {}, as localhost, as {}, or by a name in \
         admin.names of its configuration\n",
        client.local, config.name
    );
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

/// `asked`: the address of ours that the connection has come to.
fn is_ours(host: &str, config: &Config, asked: IpAddr) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => {
            host
        }
        _ => host,
    };
    let bare = without_port
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(without_port);
    if let Ok(address) = bare.parse::<IpAddr>() {
        let address = address.to_canonical();
        let is_named = |name: &String| {
            let name = name.parse::<IpAddr>();
            name.is_ok_and(|name| name.to_canonical() == address)
        };
        return address.is_loopback()
            || address == asked.to_canonical()
            || config.admin.names.iter().any(is_named);
    }
    let mut names = config.admin.names.iter().map(String::as_str);
    bare.eq_ignore_ascii_case("localhost")
        || bare.eq_ignore_ascii_case(&config.name)
        || names.any(|name| bare.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_115_a_name_that_somebody_else_has_made_up_is_not_ours() {
        let config = "name = \"news.example.org\"\ndata_dir = \"/\"\n[admin]\n\
            listen = [\"[::]:9119\"]\nnames = [\"status.example.org\", \"198.51.100.4\"]";
        let config: Config = toml::from_str(config).unwrap();
        let asked: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        for host in [
            "127.0.0.1:9119",
            "[::1]:9119",
            "[::1]",
            "localhost:9119",
            "LOCALHOST",
            "news.example.org:9119",
            "status.example.org",
            "192.0.2.7:80",
            "[::ffff:192.0.2.7]:80",
            "198.51.100.4:9119",
        ] {
            assert!(is_ours(host, &config, asked), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9119",
            "127.0.0.1.evil.example",
            "localhost.evil.example:9119",
            "192.0.2.8:9119",
            "[2001:db8::1]:9119",
            "news.example.org.:9119",
            "[localhost",
        ] {
            assert!(!is_ours(host, &config, asked), "{host}");
        }
    }
}
