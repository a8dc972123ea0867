;; A WASI 0.3 HTTP component whose instances take several requests at once. The core code that stands for
;; TURN is run for each, with the number of the request in this instance as $n, from 1, and leaves how many
;; milliseconds to sleep. Then the answer's status is 200 + $n.
(component
  (import "wasi:http/types@0.3.0" (instance $http
    (export "request" (type $request (sub resource)))
    (export "response" (type $response (sub resource)))
    (export "fields" (type $fields (sub resource)))
    ERROR-CODE
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[static]response.new" (func
      (param "headers" (own $fields)) (param "contents" (option (stream u8)))
      (param "trailers" (future (result (option (own $fields)) (error $code))))
      (result (tuple (own $response) (future (result (error $code)))))))
    (export "[method]response.set-status-code" (func
      (param "self" (borrow $response)) (param "status-code" u16) (result (result))))))
  (alias export $http "request" (type $request))
  (alias export $http "response" (type $response))
  (alias export $http "fields" (type $fields))
  (alias export $http "error-code" (type $code))
  (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
    (export "wait-for" (func async (param "how-long" u64)))))
  (type $trailers (future (result (option (own $fields)) (error $code))))
  (type $answer (result (own $response) (error $code)))

  (core module $libc (memory (export "memory") 1))
  (core instance $libc (instantiate $libc))
  (core func $fields (canon lower (func $http "[constructor]fields")))
  (core func $response (canon lower
    (func $http "[static]response.new") (memory (core memory $libc "memory"))))
  (core func $status (canon lower (func $http "[method]response.set-status-code")))
  (core func $trailers (canon future.new $trailers))
  (core func $end (canon future.write $trailers async (memory (core memory $libc "memory"))))
  (core func $sleep (canon lower (func $clock "wait-for") async))
  (core func $set (canon waitable-set.new))
  (core func $join (canon waitable.join))
  (core func $set-drop (canon waitable-set.drop))
  (core func $subtask-drop (canon subtask.drop))
  (core func $get (canon context.get i32 0))
  (core func $put (canon context.set i32 0))
  (core func $return (canon task.return (result $answer) (memory (core memory $libc "memory"))))

  (core module $main
    (import "libc" "memory" (memory 0))
    (import "host" "fields" (func $fields (result i32)))
    (import "host" "response" (func $response (param i32 i32 i32 i32 i32)))
    (import "host" "status" (func $status (param i32 i32) (result i32)))
    (import "host" "trailers" (func $trailers (result i64)))
    (import "host" "end" (func $end (param i32 i32) (result i32)))
    (import "host" "sleep" (func $sleep (param i64) (result i32)))
    (import "host" "set" (func $set (result i32)))
    (import "host" "join" (func $join (param i32 i32)))
    (import "host" "set-drop" (func $set-drop (param i32)))
    (import "host" "subtask-drop" (func $subtask-drop (param i32)))
    (import "host" "get" (func $get (result i32)))
    (import "host" "put" (func $put (param i32)))
    (import "host" "return" (func $return (param i32 i32 i32 i64 i32 i32 i32 i32)))

    (global $count (mut i32) (i32.const 0))
    ;; By request: the set in which it sleeps.
    (func $set-of (param $n i32) (result i32)
      (i32.add (i32.const 1024) (i32.mul (local.get $n) (i32.const 4))))
    (func $turn (param $n i32) (result i32) TURN)

    (func $answer (param $n i32) (result i32)
      (local $both-ends i64) (local $response i32)
      (local.set $both-ends (call $trailers))
      (call $response (call $fields) (i32.const 0) (i32.const 0)
        (i32.wrap_i64 (local.get $both-ends)) (i32.const 16))
      ;; No trailers: zeros, read by the host when it gets there.
      (drop (call $end
        (i32.wrap_i64 (i64.shr_u (local.get $both-ends) (i64.const 32))) (i32.const 64)))
      (local.set $response (i32.load (i32.const 16)))
      (drop (call $status (local.get $response) (i32.add (i32.const 200) (local.get $n))))
      (call $return (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      ;; Exit.
      (i32.const 0))

    (func (export "handle") (param $request i32) (result i32)
      (local $n i32) (local $sleep i32) (local $set i32)
      (global.set $count (i32.add (global.get $count) (i32.const 1)))
      (local.set $n (global.get $count))
      (call $put (local.get $n))
      (local.set $sleep (call $turn (local.get $n)))
      (if (i32.eqz (local.get $sleep))
        (then (return (call $answer (local.get $n)))))
      (local.set $sleep (call $sleep
        (i64.mul (i64.extend_i32_u (local.get $sleep)) (i64.const 1000000))))
      ;; Over already, so that there is nothing to wait for: on a busy machine a millisecond is.
      (if (i32.eqz (i32.shr_u (local.get $sleep) (i32.const 4)))
        (then (return (call $answer (local.get $n)))))
      (local.set $set (call $set))
      (i32.store (call $set-of (local.get $n)) (local.get $set))
      (call $join (i32.shr_u (local.get $sleep) (i32.const 4)) (local.get $set))
      ;; Wait for it.
      (i32.or (i32.const 2) (i32.shl (local.get $set) (i32.const 4))))

    (func (export "callback") (param $event i32) (param $subtask i32) (param $state i32) (result i32)
      (call $subtask-drop (local.get $subtask))
      (call $set-drop (i32.load (call $set-of (call $get))))
      (call $answer (call $get))))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "fields" (func $fields)) (export "response" (func $response))
      (export "status" (func $status)) (export "trailers" (func $trailers))
      (export "end" (func $end)) (export "sleep" (func $sleep)) (export "set" (func $set))
      (export "join" (func $join)) (export "set-drop" (func $set-drop))
      (export "subtask-drop" (func $subtask-drop)) (export "get" (func $get))
      (export "put" (func $put)) (export "return" (func $return))))))
  (func $handle async
    (param "request" (own $request)) (result (result (own $response) (error $code)))
    (canon lift (core func $main "handle") async (callback (core func $main "callback"))
      (memory (core memory $libc "memory"))))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/handler@0.3.0" (instance $handler)))
