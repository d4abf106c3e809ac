use Mojolicious::Lite -signatures;

websocket "/ws" => sub ($c) {
    $c->tx->with_protocols("chat");
    $c->tx->with_compression;
    $c->on(message => sub ($c, $message) { $c->send($message) });
};

app->start("daemon", "--listen", "http://127.0.0.1:$ENV{PORT}");
