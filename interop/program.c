/* A program in C that verifies, asks, is told, and finds the release to run, on a broker that runs:
 *
 *     program BROKER CA CHANNEL ANCHOR DIRECTORY RELEASES
 *
 * RELEASES is how many the channel has. DIRECTORY has the trust log in `trust.log` and a signed
 * release in `release`, and gets a state file. Each step prints a line; the first that is not as it
 * should be ends it with 1. It runs under valgrind too: every object is freed. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tidings.h>

#define WANT(condition)                                                        \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "%s:%d: %s is not so\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

static tidings_error *error;

/* A call that has to go well. */
static void good(tidings_code code)
{
    if (code == TIDINGS_CODE_DONE && error == NULL)
        return;
    fprintf(stderr, "%s: %s\n", tidings_code_name(code), tidings_error_text(error));
    exit(1);
}

/* A call that has to fail in this way, and to say why. */
static void bad(tidings_code code, tidings_code wanted, const char *says)
{
    const char *text = tidings_error_text(error);
    if (code != wanted || tidings_error_code(error) != wanted || !strstr(text, says)) {
        fprintf(stderr, "%s: %s; wanted is %s: %s\n", tidings_code_name(code), text ? text : "",
                tidings_code_name(wanted), says);
        exit(1);
    }
    tidings_error_free(error);
    error = NULL;
}

/* A file as octets; the caller frees them. */
static uint8_t *read_file(const char *directory, const char *name, size_t *length)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    WANT(file != NULL);
    uint8_t *octets = malloc(1 << 20);
    WANT(octets != NULL);
    *length = fread(octets, 1, 1 << 20, file);
    fclose(file);
    return octets;
}

static void verify(const char *anchor, const char *directory)
{
    size_t length, log_length;
    uint8_t *log = read_file(directory, "trust.log", &log_length);
    uint8_t *octets = read_file(directory, "release", &length);
    tidings_trust *trust = NULL;
    tidings_statement *statement = NULL;

    bad(tidings_trust_new("nonsense", log, log_length, &trust, &error), TIDINGS_CODE_USAGE,
        "anchor: ");
    WANT(trust == NULL);
    bad(tidings_trust_new(anchor, octets, length, &trust, &error), TIDINGS_CODE_REFUSED, "");
    good(tidings_trust_new(anchor, log, log_length, &trust, &error));
    good(tidings_verify(trust, octets, length, &statement, &error));
    printf("verified %s %u, version %s\n", tidings_statement_channel(statement),
           tidings_statement_serial(statement), tidings_statement_value(statement, "Version"));
    WANT(strcmp(tidings_statement_kind(statement), "release") == 0);
    WANT(strncmp(tidings_statement_id(statement), "sha256:", 7) == 0);
    size_t same = 0;
    const uint8_t *copy = tidings_statement_octets(statement, &same);
    WANT(same == length && memcmp(copy, octets, length) == 0);
    size_t fields = tidings_statement_fields(statement);
    WANT(fields > 5 && tidings_statement_field_name(statement, fields) == NULL);
    WANT(strcmp(tidings_statement_field_name(statement, 0), "Tidings") == 0);
    WANT(strcmp(tidings_statement_field_value(statement, 0), "1 release") == 0);
    WANT(tidings_statement_value(statement, "Nothing") == NULL);
    tidings_statement_free(statement);

    octets[length / 2] ^= 1; /* one octet is another one */
    WANT(tidings_verify(trust, octets, length, &statement, NULL) != TIDINGS_CODE_DONE);
    WANT(statement == NULL);
    tidings_trust_free(trust);
    free(octets);
    free(log);
}

static tidings_device *device_of(const char *broker, const char *ca, const char *channel,
                                 const char *anchor, const char *state)
{
    const char *all[][2] = {{"brokers", broker}, {"ca", ca},         {"channels", channel},
                            {"anchor", anchor},  {"state", state},   {"start", "oldest"},
                            {"identity", "a C program"}};
    tidings_options *options = tidings_options_new();
    tidings_device *device = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        good(tidings_options_set(options, all[i][0], all[i][1], &error));
    bad(tidings_options_set(options, "brokrs", "x", &error), TIDINGS_CODE_USAGE, "brokrs");
    good(tidings_device_open(options, &device, &error));
    tidings_device *second = NULL;
    bad(tidings_device_open(options, &second, &error), TIDINGS_CODE_WAITING, "in use");
    WANT(second == NULL);
    tidings_options_free(options);
    return device;
}

static void *run(void *given)
{
    char **arguments = given;
    const char *broker = arguments[1], *ca = arguments[2], *channel = arguments[3];
    const char *anchor = arguments[4], *directory = arguments[5];
    size_t releases = strtoul(arguments[6], NULL, 10);
    char state[4096];
    snprintf(state, sizeof state, "%s/c.state", directory);

    printf("libtidings %s\n", tidings_version());
    bad(tidings_verify(NULL, (const uint8_t *)"x", 1, NULL, &error), TIDINGS_CODE_USAGE, "null");
    verify(anchor, directory);

    tidings_device *device = device_of(broker, ca, channel, anchor, state);
    tidings_statements *news = NULL;
    uint32_t head = 1;
    WANT(tidings_device_freshness(device, channel, &head) == TIDINGS_FRESHNESS_STALE && head == 0);
    good(tidings_device_poll(device, &news, &error));
    size_t found = tidings_statements_count(news);
    printf("polled %zu statements\n", found);
    WANT(found == releases && tidings_statements_at(news, found) == NULL);
    for (size_t i = 0; i < found; i++)
        WANT(tidings_statement_serial(tidings_statements_at(news, i)) == i + 1);
    tidings_statements_free(news);
    WANT(tidings_device_freshness(device, channel, &head) == TIDINGS_FRESHNESS_CURRENT);
    WANT(head == releases);

    /* Not dealt with: it comes again when the program does, and is watched this time. */
    tidings_device_free(device);
    device = device_of(broker, ca, channel, anchor, state);
    for (size_t i = 1; i <= releases; i++) {
        tidings_statement *told = NULL;
        good(tidings_device_watch(device, 60000, &told, &error));
        WANT(tidings_statement_serial(told) == i);
        tidings_statement_free(told);
    }
    printf("watched %zu statements\n", releases);
    tidings_statement *none = NULL;
    bad(tidings_device_watch(device, 1, &none, &error), TIDINGS_CODE_NOTHING, "nothing new");
    good(tidings_device_delivered(device, &error));
    good(tidings_device_poll(device, &news, &error));
    WANT(tidings_statements_count(news) == 0);
    tidings_statements_free(news);

    tidings_statement *next = NULL;
    good(tidings_device_next(device, channel, &next, &error));
    uint32_t serial = tidings_statement_serial(next);
    printf("the release to run is %u\n", serial);
    WANT(serial == releases);
    tidings_statement_free(next);
    good(tidings_device_applied(device, channel, serial, &error));
    bad(tidings_device_next(device, channel, &next, &error), TIDINGS_CODE_NOTHING, "nothing newer");
    bad(tidings_device_next(device, "no channel", &next, &error), TIDINGS_CODE_USAGE, "channel: ");
    WANT(next == NULL);
    tidings_device_free(device);
    return NULL;
}

int main(int count, char **arguments)
{
    WANT(count == 7);
    signal(SIGPIPE, SIG_IGN);
    /* In a thread of its own: with it ends what the library keeps for a thread. */
    pthread_t thread;
    WANT(pthread_create(&thread, NULL, run, arguments) == 0);
    WANT(pthread_join(thread, NULL) == 0);
    puts("ok");
    return 0;
}
