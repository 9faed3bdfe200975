/* Tidings for C. `docs/guide/languages.md` explains it; `cargo xtask header` writes it.
 *
 * Every object that a function gives through a pointer to a pointer is the caller's, and is ended
 * once by the function whose name ends with `_free`. Texts are UTF-8, end with a NUL, belong to the
 * object that they were asked of, and end with it. `error` may be null; otherwise it becomes null
 * if all went well, and an error that is to be ended with `tidings_error_free` if not. An object is
 * used by one thread at a time. The program ignores SIGPIPE. */

#ifndef TIDINGS_H
#define TIDINGS_H

#include <stddef.h>
#include <stdint.h>

/*
 How a call has ended. The numbers are the exit codes of `tidings`.
 */
typedef enum {
  /*
   All went well.
   */
  TIDINGS_CODE_DONE = 0,
  /*
   Something else failed.
   */
  TIDINGS_CODE_FAILED = 1,
  /*
   An argument is missing or wrong.
   */
  TIDINGS_CODE_USAGE = 2,
  /*
   A rule forbids it: a signature, a role, the refusal of a broker.
   */
  TIDINGS_CODE_REFUSED = 3,
  /*
   Behind, stale, forked, or nothing confirms it.
   */
  TIDINGS_CODE_NOT_CURRENT = 4,
  /*
   The release was withdrawn.
   */
  TIDINGS_CODE_WITHDRAWN = 5,
  /*
   Not yet: a state file in use by another program, a release that is not due.
   */
  TIDINGS_CODE_WAITING = 6,
  /*
   No broker could be used.
   */
  TIDINGS_CODE_NO_BROKER = 7,
  /*
   A file is missing, damaged, or of another namespace.
   */
  TIDINGS_CODE_BAD_FILE = 8,
  /*
   There is nothing: no news within the time, no release to run.
   */
  TIDINGS_CODE_NOTHING = 9,
} tidings_code;

/*
 Whether anything is held back.
 */
typedef enum {
  /*
   A live beat names the head.
   */
  TIDINGS_FRESHNESS_CURRENT = 0,
  /*
   There is something later.
   */
  TIDINGS_FRESHNESS_BEHIND = 1,
  /*
   No live beat: news may be held back. So is what is unknown.
   */
  TIDINGS_FRESHNESS_STALE = 2,
  /*
   Two statements are signed for one place.
   */
  TIDINGS_FRESHNESS_FORKED = 3,
} tidings_freshness;

/*
 Follows some channels of one namespace.
 */
typedef struct tidings_device tidings_device;

/*
 Why a call has failed.
 */
typedef struct tidings_error tidings_error;

/*
 What a device is begun with.
 */
typedef struct tidings_options tidings_options;

/*
 A verified statement. There are no others.
 */
typedef struct tidings_statement tidings_statement;

/*
 Several of them, oldest first in each channel.
 */
typedef struct tidings_statements tidings_statements;

/*
 What an anchor proves: the trust in force.
 */
typedef struct tidings_trust tidings_trust;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The version of the library, `MAJOR.MINOR.PATCH`. It stays for ever.
 */
const char *tidings_version(void);

/*
 Begins a device; no broker is asked yet.

 On success `*device` is the caller's, to be ended with `tidings_device_free`. One thread at a
 time may use it; the state file is its own until it ends.
 */
tidings_code tidings_device_open(const tidings_options *options,
                                 tidings_device **device,
                                 tidings_error **error);

/*
 Asks once what is new in all channels. It may last as long as brokers take to answer.

 On success `*statements` are the caller's, to be ended with `tidings_statements_free`; there may
 be none. They come again after a restart, unless `tidings_device_delivered` was called.
 */
tidings_code tidings_device_poll(tidings_device *device,
                                 tidings_statements **statements,
                                 tidings_error **error);

/*
 Notes durably that all that was returned so far has been dealt with. A watch ends, and begins
 anew with the next call; there asking for the next one says the same of the one before.
 */
tidings_code tidings_device_delivered(tidings_device *device, tidings_error **error);

/*
 Waits for the next statement: catches up, and is told from then on. `TIDINGS_CODE_NOTHING` says
 that none came within so many milliseconds; call it again. An error ends nothing either: the
 next call goes on with other brokers.

 On success `*statement` is the caller's, to be ended with `tidings_statement_free`.
 */
tidings_code tidings_device_watch(tidings_device *device,
                                  uint32_t milliseconds,
                                  tidings_statement **statement,
                                  tidings_error **error);

/*
 The release to run in a channel now: brokers are asked this moment, and what is held back or
 withdrawn is none. `TIDINGS_CODE_NOTHING`, `TIDINGS_CODE_WAITING` and the others say why there
 is none.

 On success `*statement` is the caller's, to be ended with `tidings_statement_free`. Ask again
 before the machine goes down for it, and say with `tidings_device_applied` when it runs.
 */
tidings_code tidings_device_next(tidings_device *device,
                                 const char *name,
                                 tidings_statement **statement,
                                 tidings_error **error);

/*
 Notes durably that a release runs on this machine: what comes next follows it.
 */
tidings_code tidings_device_applied(tidings_device *device,
                                    const char *name,
                                    uint32_t serial,
                                    tidings_error **error);

/*
 Whether anything is held back in a channel, as far as is known at this moment; `head`, if it
 is not null, gets the serial of the head, or 0.
 */
tidings_freshness tidings_device_freshness(const tidings_device *device,
                                           const char *name,
                                           uint32_t *head);

/*
 Ends a device, and its connection. Null is none.
 */
void tidings_device_free(tidings_device *device);

/*
 The code of an error.
 */
tidings_code tidings_error_code(const tidings_error *error);

/*
 Why, in one line of UTF-8, for people. It belongs to the error, and ends with it.
 */
const char *tidings_error_text(const tidings_error *error);

/*
 Ends an error. Null is none.
 */
void tidings_error_free(tidings_error *error);

/*
 The name of a code, as `tidings` prints it: `no-broker`; null for what is none. It stays for
 ever.
 */
const char *tidings_code_name(int code);

/*
 Nothing yet; to be ended with `tidings_options_free`.
 */
tidings_options *tidings_options_new(void);

/*
 Sets one option:

 `brokers`: `nntps://HOST[:PORT]`, commas between several;
 `anchor`: `NAMESPACE SERIAL sha256:HEX`;
 `channels`: blanks between several;
 `state`: the file that remembers what was seen, for this program alone (none: until the end);
 `ca`, `certificate`, `certificate_key`: PEM files for TLS;
 `user`, `password_file`: who we are, told over TLS only;
 `property`: `KEY=VALUE` of this machine, again and again; `identity`: what makes it another one;
 `start`: `newest` or `oldest`, where an unknown channel begins;
 `quorum`: how many brokers must agree on the release to run.
 */
tidings_code tidings_options_set(tidings_options *options,
                                 const char *name,
                                 const char *value,
                                 tidings_error **error);

/*
 Ends the options; a device that was begun with them goes on. Null is none.
 */
void tidings_options_free(tidings_options *options);

/*
 `release`, `withdraw`, `trust` or `beat`.
 */
const char *tidings_statement_kind(const tidings_statement *statement);

/*
 The channel.
 */
const char *tidings_statement_channel(const tidings_statement *statement);

/*
 Its place in the channel, from 1 on; 0 for null.
 */
uint32_t tidings_statement_serial(const tidings_statement *statement);

/*
 `sha256:` and 64 digits.
 */
const char *tidings_statement_id(const tidings_statement *statement);

/*
 When it was signed, as it says: `2026-01-31T12:00:00Z`.
 */
const char *tidings_statement_time(const tidings_statement *statement);

/*
 All its octets, with the signatures, and how many they are. No NUL follows them.
 */
const uint8_t *tidings_statement_octets(const tidings_statement *statement, size_t *length);

/*
 How many fields it has. A field may stand there several times, `Payload` for instance.
 */
size_t tidings_statement_fields(const tidings_statement *statement);

/*
 The name of a field, by its place from 0 on; null behind the last.
 */
const char *tidings_statement_field_name(const tidings_statement *statement, size_t place);

/*
 The value of a field, by its place from 0 on; null behind the last.
 */
const char *tidings_statement_field_value(const tidings_statement *statement, size_t place);

/*
 The first value of a field, by its name, `Version` for instance; null if it is not there.
 */
const char *tidings_statement_value(const tidings_statement *statement, const char *name);

/*
 Ends a statement that was given alone, and all texts of it. Null is none.
 */
void tidings_statement_free(tidings_statement *statement);

/*
 How many there are.
 */
size_t tidings_statements_count(const tidings_statements *statements);

/*
 One of them, from 0 on; null behind the last. It belongs to them, and ends with them.
 */
const tidings_statement *tidings_statements_at(const tidings_statements *statements, size_t place);

/*
 Ends them all. Null is none.
 */
void tidings_statements_free(tidings_statements *statements);

/*
 Begins with an anchor, `NAMESPACE SERIAL sha256:HEX`, and the trust statements from that one on,
 one behind the other, as `tidings trust log` writes them.

 On success `*trust` is the caller's, to be ended with `tidings_trust_free`.
 */
tidings_code tidings_trust_new(const char *anchor,
                               const uint8_t *log,
                               size_t length,
                               tidings_trust **trust,
                               tidings_error **error);

/*
 Begins with the trust in force of a device's state file, as it is now.

 On success `*trust` is the caller's, to be ended with `tidings_trust_free`.
 */
tidings_code tidings_trust_of_state(const char *anchor,
                                    const char *state,
                                    tidings_trust **trust,
                                    tidings_error **error);

/*
 Verifies one statement against the trust in force. What is not proven is refused: there is no
 way to such a statement.

 On success `*statement` is the caller's, to be ended with `tidings_statement_free`. Whether it
 is the newest, or withdrawn, is another question: `tidings_device_next` answers that.
 */
tidings_code tidings_verify(const tidings_trust *trust,
                            const uint8_t *octets,
                            size_t length,
                            tidings_statement **statement,
                            tidings_error **error);

/*
 Ends a trust. Null is none.
 */
void tidings_trust_free(tidings_trust *trust);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TIDINGS_H */
