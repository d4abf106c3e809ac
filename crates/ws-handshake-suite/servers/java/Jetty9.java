import java.net.InetSocketAddress;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.websocket.api.Session;
import org.eclipse.jetty.websocket.api.annotations.OnWebSocketMessage;
import org.eclipse.jetty.websocket.api.annotations.WebSocket;
import org.eclipse.jetty.websocket.server.NativeWebSocketServletContainerInitializer;
import org.eclipse.jetty.websocket.server.WebSocketUpgradeFilter;

public class Jetty9 {
    @WebSocket
    public static class Echo {
        @OnWebSocketMessage
        public void text(Session session, String message) throws Exception {
            session.getRemote().sendString(message);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))));
        ServletContextHandler context = new ServletContextHandler();
        server.setHandler(context);
        NativeWebSocketServletContainerInitializer.configure(context, (servletContext, configuration) ->
            configuration.addMapping("/ws", (request, response) -> {
                if (request.getSubProtocols().contains("chat")) response.setAcceptedSubProtocol("chat");
                return new Echo();
            }));
        WebSocketUpgradeFilter.configure(context);
        server.start();
        server.join();
    }
}
