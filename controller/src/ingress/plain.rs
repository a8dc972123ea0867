//! Paths as whoever reads them most generously does. Pure.
//!
//! Requests go on as they were sent: `//` and `%2F` may mean something to a service. So nothing is matched by this form
//! alone: what it would find another route for than the path as it was written is refused.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path decoded once, `\` taken for `/`, without parameters (`;a=b`) of its parts, and with one slash for several.
pub fn plain(path: &str) -> Cow<'_, str> {
    // As nearly always.
    if !path.contains("//") && !path.contains(['%', '\\', ';']) {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut plain = String::with_capacity(decoded.len());
    for (index, part) in decoded.split(['/', '\\']).enumerate() {
        if index > 0 && !plain.ends_with('/') {
            plain.push('/');
        }
        let name = part.split(';').next();
        plain.push_str(name.unwrap_or_default());
    }
    Cow::Owned(plain)
}

/// The same up to an encoded `?` or `#`. It is part of the path (RFC 3986, 3.3), but who decodes before the path is told
/// from its query, or writes another URL of what was decoded, finds its end there.
pub fn ended(path: &str) -> Cow<'_, str> {
    let plain = plain(path);
    match plain.find(['?', '#']) {
        Some(end) => Cow::Owned(plain[..end].to_owned()),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_where_its_query_would_begin_if_it_was_not_encoded() {
        for (written, expected) in [
            ("/admin", "/admin"),
            ("/admin%3Fx", "/admin"),
            ("/%61dmin%23x/y", "/admin"),
            ("/admin%253Fx", "/admin%3Fx"),
            ("/%3f", "/"),
        ] {
            assert_eq!(ended(written), expected, "{written}");
        }
    }

    #[test]
    fn a_path_has_one_plain_form_however_it_is_written() {
        for (written, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("/admin", "/admin"),
            ("/admin/", "/admin/"),
            ("//", "/"),
            ("//admin", "/admin"),
            ("/admin//x", "/admin/x"),
            ("/admin///", "/admin/"),
            ("/%61dmin", "/admin"),
            ("/%2fadmin", "/admin"),
            ("/admin%2Fx", "/admin/x"),
            ("/\\admin", "/admin"),
            ("/admin%5cx", "/admin/x"),
            ("/admin;a=b/x", "/admin/x"),
            ("/;a/admin", "/admin"),
            ("/admin%3ba/x", "/admin/x"),
            ("/caf%c3%A9", "/café"),
            // Once.
            ("/%2561dmin", "/%61dmin"),
            ("/%zz%", "/%zz%"),
            ("/Admin", "/Admin"),
        ] {
            assert_eq!(plain(written), expected, "{written}");
        }
    }
}
