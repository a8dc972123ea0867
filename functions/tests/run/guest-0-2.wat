;; A WASI 0.2 HTTP component around the core functions that replace MAIN (and PAGES of memory).
;; They must export `handle (param $request i32) (param $out i32)` and may call:
;;   $get-stdout / $get-stderr (result i32)        a stream
;;   $write (stream, pointer, length, result)      to a stream, and flush
;;   $get-environment (result)                     a list of pairs of strings
;;   $fields, $response, $body, $stream, $respond  make a response, in this order
;;   $begin ($out) (result i32)                    does all of that; a stream for the body
;;   $own (number) (result i32)                    a resource of its own
;;   $send (pointer, length)                       GET http://…/ there, and wait for the answer
(component
  (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
  (alias export $io-error "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $stream (sub resource)))
    (alias outer 1 $error (type $error-outer))
    (export "error" (type $error (eq $error-outer)))
    (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error')))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $stream)) (param "contents" (list u8))
      (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-environment" (func (result (list (tuple string string)))))))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $stream-outer))
    (export "output-stream" (type $stream (eq $stream-outer)))
    (export "get-stdout" (func (result (own $stream))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (alias outer 1 $output-stream (type $stream-outer))
    (export "output-stream" (type $stream (eq $stream-outer)))
    (export "get-stderr" (func (result (own $stream))))))
  (import "wasi:http/types@0.2.0" (instance $http
    (alias outer 1 $output-stream (type $stream-outer))
    (export "output-stream" (type $stream (eq $stream-outer)))
    (export "incoming-request" (type $incoming-request (sub resource)))
    (export "response-outparam" (type $response-outparam (sub resource)))
    (export "fields" (type $fields (sub resource)))
    (export "outgoing-response" (type $response (sub resource)))
    (export "outgoing-body" (type $body (sub resource)))
    ERROR-CODE
    (alias outer 1 $pollable (type $pollable-outer))
    (export "pollable" (type $pollable (eq $pollable-outer)))
    (export "outgoing-request" (type $request (sub resource)))
    (export "request-options" (type $options (sub resource)))
    (export "future-incoming-response" (type $future (sub resource)))
    (type $scheme' (variant (case "HTTP") (case "HTTPS") (case "other" string)))
    (export "scheme" (type $scheme (eq $scheme')))
    (export "[constructor]outgoing-request" (func
      (param "headers" (own $fields)) (result (own $request))))
    (export "[method]outgoing-request.set-scheme" (func
      (param "self" (borrow $request)) (param "scheme" (option $scheme)) (result (result))))
    (export "[method]outgoing-request.set-path-with-query" (func
      (param "self" (borrow $request)) (param "path-with-query" (option string))
      (result (result))))
    (export "[method]outgoing-request.set-authority" (func
      (param "self" (borrow $request)) (param "authority" (option string)) (result (result))))
    (export "[method]future-incoming-response.subscribe" (func
      (param "self" (borrow $future)) (result (own $pollable))))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[constructor]outgoing-response" (func
      (param "headers" (own $fields)) (result (own $response))))
    (export "[method]outgoing-response.body" (func
      (param "self" (borrow $response)) (result (result (own $body)))))
    (export "[method]outgoing-body.write" (func
      (param "self" (borrow $body)) (result (result (own $stream)))))
    (export "[static]response-outparam.set" (func
      (param "param" (own $response-outparam))
      (param "response" (result (own $response) (error $code)))))))
  (alias export $http "outgoing-request" (type $request))
  (alias export $http "request-options" (type $options))
  (alias export $http "future-incoming-response" (type $future))
  (alias export $http "error-code" (type $code))
  (import "wasi:http/outgoing-handler@0.2.0" (instance $outgoing
    (alias outer 1 $request (type $request-outer))
    (export "outgoing-request" (type $request (eq $request-outer)))
    (alias outer 1 $options (type $options-outer))
    (export "request-options" (type $options (eq $options-outer)))
    (alias outer 1 $future (type $future-outer))
    (export "future-incoming-response" (type $future (eq $future-outer)))
    (alias outer 1 $code (type $code-outer))
    (export "error-code" (type $code (eq $code-outer)))
    (export "handle" (func (param "request" (own $request)) (param "options" (option (own $options)))
      (result (result (own $future) (error $code)))))))
  (alias export $http "incoming-request" (type $incoming-request))
  (alias export $http "response-outparam" (type $response-outparam))

  (core module $libc
    (memory (export "memory") PAGES)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (global.get $next))
      (global.set $next (i32.and
        (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 7)) (i32.const -8)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (type $thing (resource (rep i32)))
  (core func $own (canon resource.new $thing))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $get-stderr (canon lower (func $stderr "get-stderr")))
  (core func $write (canon lower
    (func $streams "[method]output-stream.blocking-write-and-flush") (memory (core memory $libc "memory"))))
  (core func $get-environment (canon lower (func $environment "get-environment")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $fields (canon lower (func $http "[constructor]fields")))
  (core func $response (canon lower (func $http "[constructor]outgoing-response")))
  (core func $body (canon lower
    (func $http "[method]outgoing-response.body") (memory (core memory $libc "memory"))))
  (core func $stream (canon lower
    (func $http "[method]outgoing-body.write") (memory (core memory $libc "memory"))))
  (core func $respond (canon lower (func $http "[static]response-outparam.set")
    (memory (core memory $libc "memory"))))
  (core func $request (canon lower (func $http "[constructor]outgoing-request")))
  (core func $set-scheme (canon lower (func $http "[method]outgoing-request.set-scheme")
    (memory (core memory $libc "memory"))))
  (core func $set-path (canon lower (func $http "[method]outgoing-request.set-path-with-query")
    (memory (core memory $libc "memory"))))
  (core func $set-authority (canon lower (func $http "[method]outgoing-request.set-authority")
    (memory (core memory $libc "memory"))))
  (core func $subscribe (canon lower (func $http "[method]future-incoming-response.subscribe")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $outgoing (canon lower (func $outgoing "handle")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))

  (core module $main
    (import "libc" "memory" (memory 0))
    (import "host" "own" (func $own (param i32) (result i32)))
    (import "host" "get-stdout" (func $get-stdout (result i32)))
    (import "host" "get-stderr" (func $get-stderr (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "get-environment" (func $get-environment (param i32)))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "response" (func $response (param i32) (result i32)))
    (import "host" "body" (func $body (param i32 i32)))
    (import "host" "stream" (func $stream (param i32 i32)))
    (import "host" "respond" (func $respond (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "host" "request" (func $request (param i32) (result i32)))
    (import "host" "set-scheme" (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "host" "set-path" (func $set-path (param i32 i32 i32 i32) (result i32)))
    (import "host" "set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
    (import "host" "subscribe" (func $subscribe (param i32) (result i32)))
    (import "host" "block" (func $block (param i32)))
    (import "host" "outgoing" (func $outgoing (param i32 i32 i32 i32)))

    (func $send (param $authority i32) (param $length i32)
      (local $request i32)
      (local.set $request (call $request (call $fields)))
      (drop (call $set-scheme (local.get $request)
        (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
      (i32.store8 (i32.const 96) (i32.const 47))
      (drop (call $set-path (local.get $request)
        (i32.const 1) (i32.const 96) (i32.const 1)))
      (drop (call $set-authority (local.get $request)
        (i32.const 1) (local.get $authority) (local.get $length)))
      (call $outgoing (local.get $request) (i32.const 0) (i32.const 0) (i32.const 128))
      (call $block (call $subscribe (i32.load (i32.const 136)))))

    ;; Sends the head of a response and returns the stream for its body.
    (func $begin (param $out i32) (result i32)
      (local $response i32)
      (local.set $response (call $response (call $fields)))
      (call $body (local.get $response) (i32.const 16))
      (call $stream (i32.load (i32.const 20)) (i32.const 24))
      (call $respond (local.get $out) (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (i32.load (i32.const 28)))
    MAIN)
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "own" (func $own))
      (export "get-stdout" (func $get-stdout)) (export "get-stderr" (func $get-stderr))
      (export "write" (func $write)) (export "get-environment" (func $get-environment))
      (export "fields" (func $fields)) (export "response" (func $response))
      (export "body" (func $body)) (export "stream" (func $stream))
      (export "respond" (func $respond)) (export "request" (func $request))
      (export "set-scheme" (func $set-scheme)) (export "set-authority" (func $set-authority)) (export "set-path" (func $set-path))
      (export "subscribe" (func $subscribe)) (export "block" (func $block))
      (export "outgoing" (func $outgoing))))))
  (func $handle
    (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $main "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
