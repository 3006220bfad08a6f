// SPDX-License-Identifier: GPL-3.0-or-later
// Where a TLS connection goes, by the name in its hello; and which files have that name's certificate.
import fs from 'fs';
import settings from 'settings.js';

// Where Caddy keeps what it has got, a folder for each authority; and certificates for all names that others bring.
const got = '/certificates/', brought = '/own/';

// The name of a hello as it is in files: a name server takes no notice of case, and of a dot at the end.
function plain(name) {
    return (name || '').toLowerCase().replace(/\.$/, '');
}

// Whether visitors of a name look at a tunnel. All others are Caddy's. (An object has more names than the role has
// written, but only those are true.)
function isTunnel(name) {
    if (settings.domains[name] === true) {
        return true;
    }
    const label = name.endsWith(settings.below) ? name.slice(0, -settings.below.length) : '';
    return /^[a-z0-9-]+$/.test(label) && settings.caddys[label] !== true && settings.caddys['*'] !== true;
}

// The time of a DER value: UTCTime (two digits of the year) or GeneralizedTime, both in Z.
function time(text) {
    const digits = text.length == 13 ? (text < '5' ? '20' : '19') + text : text;
    const p = digits.match(/^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/);
    return p ? Date.UTC(p[1], p[2] - 1, p[3], p[4], p[5], p[6]) : NaN;
}

// The values within a DER value: [[tag, beginning, end], ...].
function within(der, begin, end) {
    const values = [];
    while (begin < end) {
        const tag = der[begin];
        let length = der[begin + 1], at = begin + 2;
        if (length > 127) {
            const bytes = length & 127;
            length = 0;
            for (let i = 0; i < bytes; i++) {
                length = length * 256 + der[at++];
            }
        }
        values.push([tag, at, at + length]);
        begin = at + length;
    }
    return values;
}

// From when to when the first certificate of a PEM file is valid, in ms (RFC 5280, 4.1).
function validity(pem) {
    const found = pem.match(/-----BEGIN CERTIFICATE-----([A-Za-z0-9+\/=\s]+)-----END CERTIFICATE-----/);
    if (!found) {
        return null;
    }
    const der = Buffer.from(found[1].replace(/\s/g, ''), 'base64');
    const certificate = within(der, 0, der.length)[0];
    const signed = within(der, certificate[1], certificate[2])[0];
    const fields = within(der, signed[1], signed[2]);
    // Before it: the version, if it is not 1, the serial number, the algorithm and the issuer.
    const span = fields[fields[0][0] == 0xa0 ? 4 : 3];
    return within(der, span[1], span[2]).map(v => time(der.toString('utf8', v[1], v[2])));
}

// Whether a certificate is valid now, with more than a part of its time left.
function isValid(pem, now, left) {
    const span = validity(pem);
    return span !== null && now >= span[0] && now < span[1] - (span[1] - span[0]) * left;
}

// When a file was written, in ms; NaN, which compares with nothing, where there is none.
function modified(file) {
    try {
        return fs.statSync(file).mtimeMs;
    } catch (e) {
        return NaN;
    }
}

// The pairs of files that may hold a certificate for a name, and the part of its time in which it is to be renewed.
function candidates(name) {
    const own = settings.domains[name] === true;
    if (!own && settings.brought) {
        const file = brought + settings.brought;
        return [{ certificate: file, key: file, left: 0 }];
    }
    const folder = !own && settings.wildcard ? 'wildcard_' + settings.below : name;
    return settings.authorities.map(authority => got + authority + '/' + folder + '/' + folder)
        .map(base => ({ certificate: base + '.crt', key: base + '.key', left: 1 / 3 }));
}

// Whether a pair can be shown to visitors. What a certificate says is believed for some seconds.
function isGood(pair) {
    const written = modified(pair.certificate);
    // Caddy writes the key first: in between, the certificate is another key's.
    if (!(written >= modified(pair.key))) {
        return false;
    }
    const read = pair.certificate + ' ' + written;
    let good = ngx.shared.good.get(read);
    if (good === undefined) {
        good = Number(isValid(fs.readFileSync(pair.certificate, 'utf8'), Date.now(), pair.left));
        ngx.shared.good.set(read, good);
    }
    return good === 1;
}

// The files of a certificate for a name; undefined where Caddy has to get one, or to renew it.
function files(name) {
    return candidates(name).find(isGood);
}

// Where a TLS connection goes: to Caddy, where we end TLS, or where nobody does.
function way(s) {
    const name = plain(s.variables.ssl_preread_server_name);
    // Whose TLS is the tunneller's own, challenges of an authority included.
    if (settings.passthrough[name] === true) {
        return 'passthrough';
    }
    // An authority that looks for the answer to its challenge (RFC 8737) looks for Caddy's.
    if (settings.logged || !isTunnel(name) || s.variables.ssl_preread_alpn_protocols.split(',').includes('acme-tls/1')) {
        return 'caddy';
    }
    const pair = files(name);
    if (!pair) {
        return 'caddy';
    }
    // Caddy learns from visitors when it is to renew what it has got: it has one of each name in an hour.
    return pair.left && ngx.shared.seen.add(name, '') ? 'caddy' : 'tls';
}

// The files of the certificate that a visitor is shown: "CERTIFICATE KEY".
function shown(s) {
    const pair = files(plain(s.variables.ssl_server_name));
    return pair.certificate + ' ' + pair.key;
}

// Whether a connection that is no TLS is ssh: the client's first four bytes (RFC 4253, 4.2), in however many pieces.
function greeting(s) {
    s.on('upload', (data, flags) => {
        if (data.length < 4 && 'SSH-'.startsWith(data) && !flags.last) {
            return;
        }
        s.variables.is_ssh = data.startsWith('SSH-') ? 'yes' : '';
        s.off('upload');
        s.done();
    });
}

export default { way, greeting, shown };
